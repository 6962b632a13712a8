"""A line on stderr at once or not at all, as a signal's handler needs it; it knows no stream and imports little."""

from __future__ import annotations

import contextlib
import os
import select

STDERR = 2


def say_at_once(line: str) -> None:
    """Write a line to stderr if it takes one now; in a signal's handler, and with no Python stream in it."""
    with contextlib.suppress(OSError):
        if takes(STDERR, 0.0):
            os.write(STDERR, f"{line}\n".encode())


def takes(fd: int, wait_s: float) -> bool:
    """Whether a descriptor can be written to, or says why not, within so long."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(wait_s * 1000))
