"""Opened media files, the most recently used ones: lent to reads, closed when no read has them.

However many files are read, those that are open are a small part of the descriptors that the process may have.

It knows no faults and no retries. No file is opened or closed under its lock, since a hung storage can hold up both.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from framefeed.regular_file import open_regular

_MOST_OPEN, _LEAST_OPEN = 256, 4
_SHARE = 8  # of the descriptors that a process may have, one in so many is a media file of one root


class MediaFile(Protocol):
    """An open file, as reads need it; every method blocks on the storage and may raise OSError."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from a byte offset as far as one read goes; returns how far, 0 at the file's end."""

    def size_bytes(self) -> int:
        """How long the file is now."""

    def forget_cached(self, start: int, end: int) -> None:
        """Let the next read of these bytes come from the storage and not from this machine's memory, if it can."""

    def close(self) -> None:
        """Let go of it."""


OpenFile = Callable[[Path], MediaFile]


class DescriptorFile:
    """A MediaFile of the operating system, of a path without links. Raises OSError as open_regular does."""

    def __init__(self, path: Path) -> None:
        self._descriptor = open_regular(path, resolved=True)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """One preadv(2)."""
        return os.preadv(self._descriptor, [buffer], offset)

    def size_bytes(self) -> int:
        """By fstat(2)."""
        return os.fstat(self._descriptor).st_size

    def forget_cached(self, start: int, end: int) -> None:
        """Drop clean pages of the page cache."""
        os.posix_fadvise(self._descriptor, start, end - start, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Once."""
        os.close(self._descriptor)


class MediaFiles:
    """Up to 256 open files by path, fewer where the process may have few. Thread-safe; `close` closes them, those that
    a read has when it ends.
    """

    def __init__(self, open_path: Callable[[str], MediaFile]) -> None:
        self._open = open_path
        self._most = most_open(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._lock = threading.Lock()
        self._files: OrderedDict[str, MediaFile] = OrderedDict()
        self._lent: Counter[MediaFile] = Counter()
        self._closed = False

    @contextlib.contextmanager
    def lend(self, path: str) -> Iterator[MediaFile]:
        """The open file of a path, opened if it is not. Raises what opening raises."""
        with self._lock:
            file = self._files.get(path)
            if file is not None:
                self._files.move_to_end(path)
                self._lent[file] += 1
        if file is None:
            file = self._keep(path, self._open(path))
        try:
            yield file
        finally:
            self._take_back(path, file)

    def drop(self, path: str) -> None:
        """Open the file anew for whoever needs it next."""
        with self._lock:
            dropped = [file for file in (self._files.pop(path, None),) if file is not None and not self._lent[file]]
        _close(dropped)

    def close(self) -> None:
        """Close what no read has, and keep nothing from now on. Idempotent."""
        self._closed = True
        self.release()

    def release(self) -> None:
        """Close what no read has, where descriptors are needed for something else."""
        with self._lock:
            unused = [file for file in self._files.values() if not self._lent[file]]
            self._files.clear()
        _close(unused)

    def _keep(self, path: str, opened: MediaFile) -> MediaFile:
        """Lend what is known of the path: the file just opened, or one that another thread opened meanwhile."""
        unused = []
        with self._lock:
            file = self._files.setdefault(path, opened)
            self._lent[file] += 1
            if file is not opened:
                unused.append(opened)
            while len(self._files) > self._most:
                oldest = self._files.popitem(last=False)[1]
                if not self._lent[oldest]:
                    unused.append(oldest)
        _close(unused)
        return file

    def _take_back(self, path: str, file: MediaFile) -> None:
        with self._lock:
            self._lent[file] -= 1
            if self._lent[file]:
                return
            del self._lent[file]
            if not self._closed and self._files.get(path) is file:
                return
        _close([file])


def most_open(limit: int) -> int:
    """How many files are kept open in a process that may have so many descriptors; -1 is no limit. Pure."""
    return _MOST_OPEN if limit < 0 else max(min(limit // _SHARE, _MOST_OPEN), _LEAST_OPEN)


def _close(files: list[MediaFile]) -> None:
    for file in files:
        with contextlib.suppress(OSError):  # nothing was written: there is nothing to lose
            file.close()
