"""A manifest in memory that many processes share, each entry read and checked when it is asked for.

It is filled once, from the map beside the manifest or from the manifest itself, and then never changes: nobody can, not
even who filled it. It knows no servers; which process fills it is its callers' to agree on.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from framefeed.errors import BadInput
from framefeed.manifest import (
    MAP_NAME,
    Manifest,
    ManifestLines,
    VideoEntry,
    check_indexed,
    opened_manifest,
    pack_entry,
    read_map_note,
    unpack_entry,
)
from framefeed.record_map import HEAD_BYTES, Record, RecordMap, RecordWriter, copy_whole, read_note, write_note
from framefeed.regular_file import opened_regular
from framefeed.show_value import one_line

log = logging.getLogger("framefeed.library")

_MAP_BYTES = 1 << 33
_MANY_VIDEOS = 50_000  # more of them take a second to be read from the manifest itself
_NOTE = msgspec.msgpack.Decoder(tuple[str, bytes])
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class MappedVideos(Mapping[str, VideoEntry]):
    """The entries of a map by name, in name order."""

    def __init__(self, records: RecordMap) -> None:
        self._records = records

    def __getitem__(self, video: str) -> VideoEntry:
        """Raises KeyError, or BadInput for an entry that cannot be one."""
        try:
            return unpack_entry(video, self._records[video])
        except ValueError as error:
            raise BadInput(f"manifest: {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def new_memory() -> int:
    """A descriptor of memory that `shared_manifest` can fill, which the caller closes."""
    return os.memfd_create("framefeed-manifest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def is_filled(memory: int) -> bool:
    """Whether it holds a manifest, and can change no more."""
    return bool(fcntl.fcntl(memory, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)


def shared_manifest(folder: Path, memory: int, about: Callable[[], bytes]) -> tuple[Manifest, bytes]:
    """The manifest of FOLDER in this memory, without its refused files, and what `about` said before it was read.

    The first process that asks fills the memory. The others block until it has, or is gone; then the next one does.
    Blocks on the storage. Raises BadInput as read_manifest does, and what `about` raises.
    """
    check_indexed(folder)
    if not is_filled(memory):  # so nobody who holds on to the lock can keep others from one that is
        fcntl.lockf(memory, fcntl.LOCK_EX)  # let go by the kernel when its holder ends, however it does
        try:
            if not is_filled(memory):
                _fill(folder, memory, about())
        finally:
            fcntl.lockf(memory, fcntl.LOCK_UN)
    records = RecordMap(memoryview(mmap.mmap(memory, 0, prot=mmap.PROT_READ)))
    identity, said = _NOTE.decode(records.note)
    return Manifest(videos=MappedVideos(records), identity=identity), said


def _fill(folder: Path, memory: int, about: bytes) -> None:
    identity = read_identity_of(folder)
    with open(memory, "r+b", closefd=False) as file:  # closing any descriptor of it would let go of the lock
        if not _is_copied(folder, file) and not _is_converted(folder, file):
            _sort(folder, file)
        write_note(file, msgspec.msgpack.encode((identity, about)))
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)


def read_identity_of(folder: Path) -> str:
    """As the head of FOLDER's manifest says. Raises BadInput."""
    with opened_manifest(folder) as lines:
        return lines.head.identity


def _is_copied(folder: Path, file: BinaryIO) -> bool:
    """Whether the map of a folder could be copied; if not, the log says why."""
    path = folder / MAP_NAME
    try:
        wanted = read_map_note(folder)
        with opened_regular(path, limit_bytes=_MAP_BYTES) as source:
            if read_note(source.read(HEAD_BYTES)) != wanted.pack():
                raise ValueError("it is of another manifest")
            source.seek(0)
            _empty(file)
            copy_whole(source, file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else one_line(str(error))
        log.info("%s is not used (%s): the manifest is read instead; 'framefeed index' writes one", path, why)
        return False
    return True


def _is_converted(folder: Path, file: BinaryIO) -> bool:
    """Write the map of a manifest as it is read, False if it is not in name order. Raises BadInput."""
    with opened_manifest(folder) as lines:
        if lines.head.videos > _MANY_VIDEOS:
            log.warning("the manifest of %d videos has no map and is read line by line", lines.head.videos)
        _empty(file)
        writer, found = RecordWriter(file), Counter[bool]()
        try:
            writer.write(_records(lines, found))
        except ValueError:
            return False
        lines.check_count(found[True], found[False])
        writer.places()
        writer.head(b"")
    return True


def _sort(folder: Path, file: BinaryIO) -> None:
    """The same, for lines in any order; all records are in this process's memory meanwhile."""
    with opened_manifest(folder) as lines:
        found = Counter[bool]()
        records = dict(_records(lines, found))
        lines.check_count(len(records), found[False])
        _empty(file)
        writer = RecordWriter(file)
        writer.write(sorted(records.items()))
        writer.places()
        writer.head(b"")


def _empty(file: BinaryIO) -> None:
    """Of what another process, which is gone, or another try left."""
    file.seek(0)
    file.truncate()


def _records(lines: ManifestLines, found: Counter[bool]) -> Iterator[Record]:
    """The videos as records; how many there were, and how many other lines, is in `found` at the end."""
    for value in lines.values():
        found[isinstance(value, VideoEntry)] += 1
        if isinstance(value, VideoEntry):
            yield value.video, pack_entry(value)
