"""Letting go of a reentrant lock that a thread was made to leave taken. It knows nothing of what the lock is for."""

from __future__ import annotations

import contextlib
from typing import Protocol


class Releasable(Protocol):
    """A threading.RLock."""

    def release(self) -> None: ...


def let_go_of(lock: Releasable) -> None:
    """Release a lock as often as this thread has it: an exception that is raised between taking it and the `with`, or
    between the `with` and its end, leaves it taken, and others would wait for it for ever. For callers who are in no
    `with` of it.
    """
    with contextlib.suppress(RuntimeError):  # it is not this thread's, as it should be
        while True:
            lock.release()
