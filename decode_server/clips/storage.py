"""Reads byte ranges of media files under one root; tells failing storage from files that are not as indexed.

The one place that decides what a failed read means. It knows no packets; it never reads outside its root, links
resolved. A storage that fails is tried again here, with backoff and a bound, and then on another server.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decode_server.clips.media_files import DescriptorFile, MediaFile, MediaFiles, OpenFile
from decode_server.clips.read_watch import RETRY, ReadWatch
from decode_server.sources.file_names import as_path
from framefeed.errors import CorruptMedia, ResourceExhausted, StorageFault

PADDING_BYTES = 64  # FFmpeg's decoders may read this far past a packet (AV_INPUT_BUFFER_PADDING_SIZE)
_LARGE_BYTES = 1 << 20
BACKOFF_S = (0.02, 0.1, 0.4)  # before each further try; a read that fails costs its thread half a second of waiting

_KINDS = {
    errno.EIO: "io",
    errno.ESTALE: "stale",
    errno.ETIMEDOUT: "timeout",
    errno.EAGAIN: "timeout",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.ENOTCONN: "unmounted",  # what is left of a mount whose file system process ended
}
_TWICE = frozenset({"shrunk", "denied"})  # what seldom passes: a second try, and no third
_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # of this process or machine, not of the storage
_MEDIA = frozenset({errno.EINVAL, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})


class _Fault(Exception):
    """A read that another try may make good, by one of FAULTS; `stands` is the error once none does."""

    def __init__(self, kind: str, stands: StorageFault | CorruptMedia | ResourceExhausted) -> None:
        super().__init__(str(stands))
        self.kind, self.stands = kind, stands


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What a storage meets of the world: how files are opened, and how it rests before a further try."""

    open_file: OpenFile = DescriptorFile
    sleep: Callable[[float], None] = time.sleep


class Storage:
    """The files under `root`, and those in folders `outside` of it that links in it lead to. Thread-safe; `close`
    closes them.
    """

    def __init__(
        self, root: Path, *, watch: ReadWatch, seams: Seams | None = None, outside: Sequence[Path] = ()
    ) -> None:
        seams = seams or Seams()
        self._root = Path(os.path.realpath(root))
        self._outside = tuple(Path(os.path.realpath(folder)) for folder in outside)
        self._mount = next(path for path in (self._root, *self._root.parents) if os.path.ismount(path))
        self._files = MediaFiles(self._open)
        self._watch, self._open_file, self._sleep = watch, seams.open_file, seams.sleep

    def read(self, path: str, start: int, end: int, *, anew: bool = False) -> bytearray:
        """Bytes [start, end) of a file and PADDING_BYTES zeros behind them; `anew` past this machine's cache.

        Blocks for as long as the storage does, and half a second more where it fails and is tried again.

        Raises:
            CorruptMedia: the file is gone, outside the root, or ends before `end`, also when opened anew.
            StorageFault: the storage failed each time.
            ResourceExhausted: this process had no descriptor or memory left each time.
        """
        for tries, rest_s in enumerate((*BACKOFF_S, None), start=1):
            try:
                with self._watch.reading(path):
                    return self._read(path, (start, end), anew=anew)
            except _Fault as fault:
                self._watch.count(fault.kind)
                if rest_s is None or (fault.kind in _TWICE and tries > 1):
                    raise type(fault.stands)(f"{fault.stands}, tried {tries} times") from None
            self._watch.count(RETRY)
            self._sleep(rest_s)
        raise AssertionError("storage: the last try returns or raises")

    def close(self) -> None:
        """Close all files; idempotent. A file that a read still uses is closed when that read ends."""
        self._files.close()

    def _read(self, path: str, span: tuple[int, int], *, anew: bool) -> bytearray:
        """One try. After a fault the next one opens the file anew."""
        if anew:
            self._files.drop(path)
        try:
            with self._files.lend(path) as file:
                if anew:
                    file.forget_cached(*span)
                with self._watch.timed("read"):
                    return _bytes_of(file, path, span)
        except _Fault:
            self._files.drop(path)
            raise
        except OSError as error:
            self._files.drop(path)
            if error.errno in _RESOURCES:
                self._files.release()
            raise self._explained(path, error) from None

    def _open(self, path: str) -> MediaFile:
        resolved = Path(os.path.realpath(self._root / as_path(path), strict=True))
        if not any(resolved.is_relative_to(folder) for folder in (self._root, *self._outside)):
            raise CorruptMedia(f"{path} leads out of the root")
        with self._watch.timed("open"):
            return self._open_file(resolved)

    def _explained(self, path: str, error: OSError) -> _Fault | CorruptMedia:
        """What a failed look-up, open or read means."""
        if error.errno in _RESOURCES:
            return _Fault("other", ResourceExhausted(f"{path}: cannot be read here now ({error.strerror})"))
        if error.errno in _MEDIA:
            return CorruptMedia(f"{path} cannot be read ({error.strerror}); index the root again")
        if error.errno != errno.ENOENT:
            fault = StorageFault(f"{path}: read failed ({error.strerror})")
            return _Fault(_KINDS.get(error.errno or 0, "other"), fault)
        if missing := self._missing_mount():
            return _Fault("unmounted", StorageFault(f"{path}: read failed ({missing})"))
        return CorruptMedia(f"{path} is gone; index the root again")

    def _missing_mount(self) -> str:
        """Why the whole root seems to be gone and not just a file of it; empty if the root is there."""
        if not os.path.ismount(self._mount):
            return f"nothing is mounted at {self._mount} any more"
        try:
            with os.scandir(self._root) as entries:
                return "" if next(entries, None) else f"the root {self._root} is empty"
        except OSError as error:
            return f"the root {self._root} cannot be listed: {error.strerror}"


def _bytes_of(file: MediaFile, path: str, span: tuple[int, int]) -> bytearray:
    """Raises _Fault where the file ends before the span does, OSError where the storage says so."""
    start, end = span
    if end - start > _LARGE_BYTES and (size_bytes := file.size_bytes()) < end:  # before memory is taken for it
        raise _shrunk(path, size_bytes, end)
    buffer = bytearray(end - start + PADDING_BYTES)
    at = start
    while at < end:
        got = file.read_into(memoryview(buffer)[at - start : end - start], at)
        if got == 0:
            size_bytes = file.size_bytes()
            if size_bytes >= end:
                raise _Fault("short", StorageFault(f"{path}: a read ended at byte {at} of {size_bytes}"))
            raise _shrunk(path, size_bytes, end)
        at += got
    return buffer


def _shrunk(path: str, size_bytes: int, end: int) -> _Fault:
    return _Fault("shrunk", CorruptMedia(f"{path} ends at byte {size_bytes}, the index needs {end}"))
