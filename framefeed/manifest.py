"""The manifest: which videos a root holds, how long they are, and where their packet indices lie.

One JSON line a video after a header line, read once; a server never lists directories. It knows nothing of packets.
The same entries are written as a map of records beside it, which a server's workers share and look up on demand.
The header has the data set's identity: a hash of what decides which clips there are and their bytes, whatever the place
they lie at. Two roots of one identity can serve one run; roots whose videos only have equal names and lengths cannot.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, get_type_hints

import msgspec
from msgspec import Struct

from framefeed.errors import BadInput
from framefeed.new_file import NewFile
from framefeed.option_types import shown
from framefeed.ranges import MAX_BYTES, MAX_SECONDS, check_range, check_ranges, check_text
from framefeed.record_map import RecordWriter
from framefeed.regular_file import opened_regular
from framefeed.show_value import one_line, show_value

log = logging.getLogger("framefeed.manifest")

MANIFEST_NAME = "framefeed.manifest.jsonl"
PACKETS_NAME = "framefeed.packets"
MAP_NAME = "framefeed.manifest.map"
MANIFEST_VERSION = 2
_READ_VERSIONS = (1, 2)  # version 1 has neither identity nor digests
_IDENTITY_VERSION = "v1"  # of what is hashed: identities of different versions are never equal
_HEADER_BYTES = 1 << 12
_MANIFEST_BYTES = 1 << 32  # some ten million videos
_LINE_BYTES = 1 << 26
_MAX_WHY = 200
_MAX_CHUNKS = 1 << 20  # of one video
_MAX_SIDE_PX = 1 << 17
MAX_RECORD_BYTES = 1 << 29
"""The largest packet index of one file: some 17 million packets."""
_PLACE_FIELDS = frozenset({"record_offset", "record_bytes"})  # where records lie: no part of what they say


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEntry:
    """One video: its length and displayed size, and per chunk (in time order) its start and its packet-index record.

    `chunk_start_s[i]` is the video time of chunk i's first instant; `record_bytes[i]` bytes at `record_offset[i]` of
    the packets file describe it, and `record_digest[i]` is the digest of what they say; there is none in a manifest of
    version 1. A plain video file is one chunk that starts at 0.
    """

    video: str
    codec: str
    duration_s: float
    fps: float
    width_px: int
    height_px: int
    media_bytes: int
    chunk_start_s: tuple[float, ...]
    record_offset: tuple[int, ...]
    record_bytes: tuple[int, ...]
    record_digest: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.chunk_start_s or not (len(self.chunk_start_s) == len(self.record_offset) == len(self.record_bytes)):
            raise BadInput(
                f"manifest: {show_value(self.video)} lists {len(self.chunk_start_s)} chunks without one record for each"
            )
        if self.record_digest and len(self.record_digest) != len(self.chunk_start_s):
            raise BadInput(
                f"manifest: {show_value(self.video)} lists {len(self.chunk_start_s)} chunks without one digest for each"
            )
        try:
            self._check_values()
        except ValueError as error:
            raise BadInput(f"manifest: {show_value(self.video)}: {error}") from None

    def _check_values(self) -> None:
        check_text("its name", self.video, least=1)
        check_text("codec", self.codec, most=64)
        check_range("duration_s", self.duration_s, 0, MAX_SECONDS)
        check_range("fps", self.fps, 0, MAX_SECONDS)
        for name in ("width_px", "height_px"):
            check_range(name, getattr(self, name), 1, _MAX_SIDE_PX)
        check_range("media_bytes", self.media_bytes, 0, MAX_BYTES)
        check_range("its number of chunks", len(self.chunk_start_s), 1, _MAX_CHUNKS)
        check_ranges("chunk_start_s", self.chunk_start_s, 0, MAX_SECONDS)
        if list(self.chunk_start_s) != sorted(self.chunk_start_s):
            raise ValueError("chunk_start_s is not in time order")
        check_ranges("record_offset", self.record_offset, 0, MAX_BYTES)
        check_ranges("record_bytes", self.record_bytes, 1, MAX_RECORD_BYTES)
        check_ranges("the lengths of record_digest", tuple(map(len, self.record_digest)), 0, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that is not served, and why."""

    path: str
    reason: str

    def __post_init__(self) -> None:
        try:
            check_text("the path of a refused file", self.path)
            check_text("why a file is refused", self.reason, most=1 << 16)
        except ValueError as error:
            raise BadInput(f"manifest: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The videos of a root by name, in name order, and the files that were refused. `identity` is what the header of
    the file that it was read from says, "" for one of version 1.
    """

    videos: Mapping[str, VideoEntry]
    refused: tuple[Refusal, ...] = ()
    identity: str = field(default="", compare=False)

    def write(self, folder: Path, *, just_before: Callable[[], object] = lambda: None, finished: bool = True) -> str:
        """Write FOLDER/framefeed.manifest.jsonl atomically, under the identity of what is written, and return that;
        `just_before` it takes its place, its packet indices can take theirs. Its map is written beside it, of no use
        without it. Not `finished` is one of what was indexed so far, and says so.
        """
        identity = identity_of(self.videos)
        with NewFile(folder / MAP_NAME) as new_map, NewFile(folder / MANIFEST_NAME) as new:
            writer = RecordWriter(new_map.file)
            writer.write((video, pack_entry(self.videos[video])) for video in sorted(self.videos))
            digest = writer.places()
            head = {
                "framefeed_manifest": MANIFEST_VERSION,
                "videos": len(self.videos),
                "identity": identity,
                "map": digest,
            }
            if not finished:
                head["unfinished"] = True
            new.file.write(json.dumps(head).encode() + b"\n")
            for kind, values in ((_VIDEO, self.videos.values()), (_REFUSED, self.refused)):
                for value in values:
                    new.file.write(_line(kind, value))
            new.file.flush()
            os.fsync(new.file.fileno())
            writer.head(MapNote(identity, new.file.tell(), digest).pack())
            just_before()
            new_map.take_place()
            os.utime(new.file.fileno())  # whoever looks at both files' times sees that it was the last to be written
            new.take_place()
        return identity


def identity_of(videos: Mapping[str, VideoEntry]) -> str:
    """The identity of a data set of these videos, 35 characters.

    It changes with a video's name, length, size or codec, with the times of its chunks and with any bit of their media
    or packet indices; not with the folder of the root, the time of a file or what is quarantined or refused.
    """
    whole = hashlib.blake2b(digest_size=16)
    names = sorted(set(VideoEntry.__slots__) - _PLACE_FIELDS)
    for video in sorted(videos):
        whole.update(json.dumps([getattr(videos[video], name) for name in names]).encode() + b"\n")
    return f"{_IDENTITY_VERSION}-{whole.hexdigest()}"


def read_identity(folder: Path) -> str:
    """What the header of FOLDER's manifest calls the data set, "" in version 1; reads one line.

    Raises OSError if that cannot be read, BadInput if it is no header.
    """
    return read_map_note(folder).identity


def is_finished(folder: Path) -> bool:
    """Whether there is a manifest of all that was to be indexed, and not one of a run that goes on or was ended; reads
    one line.
    """
    try:
        with opened_regular(folder / MANIFEST_NAME, limit_bytes=_MANIFEST_BYTES) as file:
            return not _read_head(folder / MANIFEST_NAME, file).unfinished
    except (OSError, BadInput):
        return False


def read_map_note(folder: Path) -> MapNote:
    """What is to be written on the map of FOLDER's manifest; reads one line of that. Raises as read_identity does."""
    path = folder / MANIFEST_NAME
    with opened_regular(path, limit_bytes=_MANIFEST_BYTES) as file:
        head = _read_head(path, file)
        return MapNote(head.identity, os.fstat(file.fileno()).st_size, head.map)


def check_indexed(folder: Path, *, option: str = "--index") -> None:
    """Raises BadInput if there is no such folder, no manifest in it, or its storage fails; `option` names the folder of
    the index.
    """
    try:
        there = folder.is_dir()
    except OSError as error:  # a mount whose server is away
        raise BadInput(f"root {folder} cannot be looked at: {error.strerror}; wanted storage that answers") from None
    if not there:
        raise BadInput(f"root {folder} is not a folder; wanted one made by 'framefeed chunk' or 'framefeed index'")
    try:
        (folder / MANIFEST_NAME).lstat()
    except FileNotFoundError:
        raise BadInput(
            f"root {folder} has no {MANIFEST_NAME}; run 'framefeed index {folder}' first, or name the folder of its "
            f"index with {option}"
        ) from None
    except OSError as error:  # which says nothing of whether there is one
        closed = error.errno == errno.EACCES
        wanted = f"a folder that user {os.geteuid()} may read" if closed else "storage that answers"
        raise BadInput(f"root {folder} cannot be looked at: {error.strerror}; wanted {wanted}") from None


def read_manifest(folder: Path, *, partial: bool = False) -> Manifest:
    """Read FOLDER/framefeed.manifest.jsonl; of one that is not finished the log says so, unless `partial`.

    Raises BadInput if it is missing, empty, damaged, of another version, or says what cannot be of a video.
    """
    if not isinstance(folder, Path):
        raise BadInput(f"root {shown(folder)} is no pathlib.Path; wanted read_manifest(Path(ROOT))")
    with opened_manifest(folder, partial=partial) as lines:
        videos: dict[str, VideoEntry] = {}
        refused: list[Refusal] = []
        for value in lines.values():
            if isinstance(value, Refusal):
                refused.append(value)
            else:
                videos[value.video] = value
        lines.check_count(len(videos), len(refused))
        return Manifest(videos=videos, refused=tuple(refused), identity=lines.head.identity)


@contextlib.contextmanager
def opened_manifest(folder: Path, *, partial: bool = False) -> Iterator[ManifestLines]:
    """FOLDER's manifest, to be read line by line; of one that is not finished the log says so, unless `partial`. Raises
    BadInput, also within `with`, as read_manifest does.
    """
    path = folder / MANIFEST_NAME
    check_indexed(folder)
    try:
        with opened_regular(path, limit_bytes=_MANIFEST_BYTES) as file:
            lines = ManifestLines(path, file)
            if lines.head.unfinished and not partial:
                log.warning("%s lists what was indexed so far and not all: run 'framefeed index' to its end", path)
            yield lines
    except OSError as error:
        raise BadInput(f"manifest {path} cannot be read: {error.strerror}") from None


class _Head(Struct):
    framefeed_manifest: int
    videos: int = 0
    identity: str = ""
    map: str = ""
    unfinished: bool = False

    def __post_init__(self) -> None:
        check_text("identity", self.identity, most=64)
        check_text("map", self.map, most=64)


class MapNote(Struct, frozen=True, array_like=True):
    """What ties a map to its manifest: the identity, how long that file is, and the digest of the map's records. A map
    with another note is of another manifest.
    """

    identity: str
    manifest_bytes: int
    digest: str

    def pack(self) -> bytes:
        """As it stands on the map."""
        return msgspec.msgpack.encode(self)


def _struct(kind: type[VideoEntry] | type[Refusal], tag: str) -> type[Struct]:
    """What a line of this kind holds, each value of its type."""
    return msgspec.defstruct(f"_{kind.__name__}", _rows(kind), tag_field="kind", tag=tag, forbid_unknown_fields=True)


def _rows(kind: type[VideoEntry] | type[Refusal]) -> list[Any]:
    hints = get_type_hints(kind)
    return [
        (f.name, hints[f.name]) if f.default is MISSING else (f.name, hints[f.name], f.default) for f in fields(kind)
    ]


_VIDEO, _REFUSED = _struct(VideoEntry, "video"), _struct(Refusal, "refused")
_HEAD = msgspec.json.Decoder(_Head)
_RECORD = msgspec.defstruct("_Record", [row for row in _rows(VideoEntry) if row[0] != "video"], array_like=True)
_RECORDS, _RECORD_DECODER = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_RECORD)
_LINE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_VIDEO | _REFUSED)


class ManifestLines:
    """An open manifest: its head, and the lines behind it, to be read once."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Raises BadInput for a head of another version."""
        self._path, self._file = path, file
        self.head = _read_head(path, file)
        if self.head.framefeed_manifest not in _READ_VERSIONS:
            seen = show_value(self.head.framefeed_manifest)
            raise BadInput(
                f"manifest {path} has version {seen}, wanted {MANIFEST_VERSION}; run 'framefeed index' again"
            )

    def values(self) -> Iterator[VideoEntry | Refusal]:
        """What each line says, in the order of the file. Raises BadInput for one that is damaged."""
        for number, line in enumerate(_lines(self._path, self._file), start=2):
            values = _decoded(self._path, number, _LINE, line)
            kind = Refusal if isinstance(values, _REFUSED) else VideoEntry
            try:
                yield kind(**{name: getattr(values, name) for name in values.__struct_fields__})
            except BadInput as error:
                raise BadInput(f"{error} (line {number} of {self._path}); run 'framefeed index' again") from None

    def check_count(self, videos: int, refused: int) -> None:
        """Raises BadInput if it has other than so many videos, or none."""
        if videos != self.head.videos:
            raise BadInput(
                f"manifest {self._path} lists {videos} videos, its header says {self.head.videos}; index again"
            )
        if not videos:
            raise BadInput(f"manifest {self._path} lists no usable video ({refused} refused); wanted at least one")


def pack_entry(entry: VideoEntry) -> bytes:
    """An entry as a record of a map, without its name."""
    return _RECORDS.encode(tuple(getattr(entry, name) for name in _RECORD.__struct_fields__))


def unpack_entry(video: str, record: bytes) -> VideoEntry:
    """The entry of a video's record. Raises BadInput for what cannot be one."""
    try:
        values = _RECORD_DECODER.decode(record)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput(f"manifest: the record of {show_value(video)} is damaged ({one_line(str(error))})") from None
    return VideoEntry(video=video, **{name: getattr(values, name) for name in _RECORD.__struct_fields__})


def _read_head(path: Path, file: BinaryIO) -> _Head:
    line = file.readline(_HEADER_BYTES)
    if not line:
        raise BadInput(f"manifest {path} is damaged: it is empty; wanted a header line and one line a video")
    head: _Head = _decoded(path, 1, _HEAD, line)
    return head


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The lines that are left, one in memory at a time."""
    while line := file.readline(_LINE_BYTES + 1):
        if len(line) > _LINE_BYTES:
            raise BadInput(f"manifest {path} is damaged: a line has more than {_LINE_BYTES} bytes; index again")
        yield line


def _decoded(path: Path, number: int, decoder: msgspec.json.Decoder[Any], line: bytes) -> Any:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = one_line(f"line {number}: {error}", chars=_MAX_WHY)
        raise BadInput(f"manifest {path} is damaged ({why}); run 'framefeed index' again") from None


def _line(kind: type[Struct], value: VideoEntry | Refusal) -> bytes:
    values = kind(**{name: getattr(value, name) for name in kind.__struct_fields__})
    return json.dumps(msgspec.to_builtins(values)).encode() + b"\n"
