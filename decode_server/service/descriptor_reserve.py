"""A few open files kept back, for what must be opened when all others are taken. It knows not what that is.

A process has one number of open files for all that it does. A flood of connections takes them all; without a reserve
the worker that dies next could not be replaced, nor anyone be told that there is none left.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

RESERVED = 8  # a start takes five for a moment and one for good
# What a machine that is full for a while answers: no reason to give a server up.
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC})


class DescriptorReserve:
    """Holds `count` descriptors, or as many of them as can be had. Whoever makes it closes it."""

    def __init__(self, count: int = RESERVED) -> None:
        self._count = count
        self._held: list[int] = []
        self.refill()

    @property
    def held(self) -> int:
        """How many are kept back now."""
        return len(self._held)

    def refill(self) -> None:
        """Take back what is missing, as far as that can be."""
        if len(self._held) >= self._count:
            return
        with contextlib.suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Within it they are free for what is opened here; other threads may take some."""
        self.close()
        try:
            yield
        finally:
            self.refill()

    def close(self) -> None:
        """Give all up. Idempotent."""
        while self._held:
            os.close(self._held.pop())
