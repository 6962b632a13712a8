"""Files that fail as storage does: an opener for the storage's seam that follows a script, one entry a read.

It fakes only the faults; whatever is not scripted is read from the real file.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from decode_server.clips.media_files import DescriptorFile

Trouble = Callable[[DescriptorFile, memoryview, int], int]


def failing(number: int) -> Trouble:
    """The read fails with an errno."""

    def read(file: DescriptorFile, buffer: memoryview, offset: int) -> int:
        raise OSError(number, os.strerror(number))

    return read


def ending(file: DescriptorFile, buffer: memoryview, offset: int) -> int:
    """The read says that the file ends, although it goes on."""
    return 0


def halved(file: DescriptorFile, buffer: memoryview, offset: int) -> int:
    """The read gives half of what was asked for, as any read may."""
    return file.read_into(buffer[: max(len(buffer) // 2, 1)], offset)


def flipped(file: DescriptorFile, buffer: memoryview, offset: int) -> int:
    """The read gives wrong bytes."""
    got = file.read_into(buffer, offset)
    for at in range(got):
        buffer[at] ^= 0xFF
    return got


def hanging(entered: threading.Event, until: threading.Event) -> Trouble:
    """The read does not return until told to."""

    def read(file: DescriptorFile, buffer: memoryview, offset: int) -> int:
        entered.set()
        assert until.wait(60)
        return file.read_into(buffer, offset)

    return read


class FaultyFiles:
    """Opens files; what `opening` and `reading` hold goes wrong next, in that order, whichever file it meets."""

    def __init__(self, *, name: str = "") -> None:
        self.name = name  # only files of this name misbehave; empty: all
        self.opening: deque[int] = deque()
        self.reading: deque[Trouble] = deque()
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.forgotten: list[tuple[int, int]] = []

    def __call__(self, path: Path) -> _FaultyFile:
        if self._due(path) and self.opening:
            number = self.opening.popleft()
            raise OSError(number, os.strerror(number))
        self.opened[path.name] += 1
        return _FaultyFile(self, path)

    def trouble(self, path: Path) -> Trouble | None:
        """What happens to the next read."""
        return self.reading.popleft() if self._due(path) and self.reading else None

    def _due(self, path: Path) -> bool:
        return self.name in ("", path.name)


class _FaultyFile:
    def __init__(self, files: FaultyFiles, path: Path) -> None:
        self._files, self._path, self._file = files, path, DescriptorFile(path)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        trouble = self._files.trouble(self._path)
        return self._file.read_into(buffer, offset) if trouble is None else trouble(self._file, buffer, offset)

    def size_bytes(self) -> int:
        return self._file.size_bytes()

    def forget_cached(self, start: int, end: int) -> None:
        self._files.forgotten.append((start, end))
        self._file.forget_cached(start, end)

    def close(self) -> None:
        self._files.closed[self._path.name] += 1
        self._file.close()


KINDS = {
    errno.EIO: "io",
    errno.ESTALE: "stale",
    errno.ETIMEDOUT: "timeout",
    errno.EREMOTEIO: "other",
    errno.ENOMEM: "other",
}
