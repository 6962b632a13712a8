"""What SIGINT does to a command: it ends it in one line, at any moment. It knows no verb.

While a verb runs, an interrupt is a KeyboardInterrupt, by which the verb undoes what it began. Before and after
there is nothing to undo, and an exception amid an import, or amid the interpreter's own end, would be a traceback.
Whatever this file imports comes before that: it is little.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from framefeed.cli.at_once import say_at_once

INTERRUPTED = 130  # as shells have it


def end_on_interrupt() -> None:
    """Have SIGINT end this process at once, but within `raised`; where it is ignored it stays so. Main thread only."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


@contextmanager
def raised() -> Iterator[None]:
    """Within it SIGINT raises KeyboardInterrupt, whatever `end_on_interrupt` did."""
    ended = signal.getsignal(signal.SIGINT) is _end
    try:
        if ended:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        if ended:
            signal.signal(signal.SIGINT, _end)


@contextmanager
def held() -> Iterator[None]:
    """Within it this thread takes no SIGINT, it comes afterwards; processes started here never do, unless `let_in`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_in() -> None:
    """In a process that was started within `held`: take SIGINT, which ends it as it does a command."""
    end_on_interrupt()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end(_number: int, _frame: FrameType | None) -> None:
    say_at_once("framefeed: interrupted")
    os._exit(INTERRUPTED)
