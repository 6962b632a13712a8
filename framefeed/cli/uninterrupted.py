"""Processes of a command that take no SIGINT: Ctrl-C goes to all of them, and the command itself ends its own.

A process of `multiprocessing` imports for a second before it can say so itself, and would be interrupted there, with a
traceback. So it is born with SIGINT held. It knows nothing of what the processes do.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from framefeed.cli.parent_death import end_with_parent


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Within it this thread takes no SIGINT, it comes afterwards; a process that is started here takes none either."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_uninterrupted(parent: int) -> None:
    """In a process that was started so by process `parent`: end with that, and take no SIGINT for good."""
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # what this process starts is its own affair
