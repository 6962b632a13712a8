"""What SIGINT does to a command: it ends it in one line, at any moment. It knows no verb.

While a verb runs, an interrupt is a KeyboardInterrupt, by which the verb undoes what it began. Before and after there is
nothing to undo, and an exception in the middle of an import, or of the interpreter's own end, would be a traceback.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from framefeed.cli.standard_streams import say_at_once

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


def _end(_number: int, _frame: FrameType | None) -> None:
    say_at_once("framefeed: interrupted")
    os._exit(INTERRUPTED)
