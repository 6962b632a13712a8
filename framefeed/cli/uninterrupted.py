"""Processes of a command that take no SIGINT: Ctrl-C goes to all of them, and the command itself ends its own.

A process of `multiprocessing` imports for a second before it can say so itself, and would be interrupted there, with a
traceback. So it is born within `interrupts.held`. It knows nothing of what the processes do.
"""

from __future__ import annotations

import signal

from framefeed.cli.parent_death import end_with_parent


def begin_uninterrupted(parent: int) -> None:
    """In a process that was started within `held` by process `parent`: end with that, and take no SIGINT for good."""
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # what this process starts is its own affair
