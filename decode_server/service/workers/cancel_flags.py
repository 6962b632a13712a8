"""Which running tasks are not wanted any more: a byte of shared memory each, set by the front and read by a worker.

A decoding thread looks at its own between packets, which costs nothing and asks nobody. It knows no jobs.
"""

from __future__ import annotations

import contextlib
import mmap
import os


class CancelFlags:
    """The flags of all tasks. `fd` is for workers to inherit; `close` is idempotent. Raises OSError."""

    def __init__(self, count: int) -> None:
        self.fd = os.memfd_create("framefeed-cancel-flags", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, max(count, 1))
        self._map = mmap.mmap(self.fd, max(count, 1))
        self._free = list(range(count))

    def take(self) -> int:
        """A flag that is not set, for a task that begins."""
        flag = self._free.pop()
        self._map[flag] = 0
        return flag

    def set(self, flag: int) -> None:
        """The task is not wanted any more."""
        self._map[flag] = 1

    def give_back(self, flag: int) -> None:
        """The task is over, and no worker looks at its flag."""
        self._free.append(flag)

    def close(self) -> None:
        """Give the memory back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            with contextlib.suppress(BufferError):
                self._map.close()
