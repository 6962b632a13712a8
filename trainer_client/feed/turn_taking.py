"""Whose turn it is to use what one thread at a time may use: a second one that comes meanwhile is refused.

It knows nothing of what is used. A hand-over from thread to thread, one after the other, is no misuse.
"""

from __future__ import annotations

import threading
from types import TracebackType

from framefeed.errors import BadInput
from framefeed.show_value import show_value


class TurnTaking:
    """A lock that refuses instead of making wait: two that take turns by chance have each some of what comes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._inside = ""

    def __enter__(self) -> None:
        """Raises BadInput while another thread is inside, or this one by a signal handler."""
        if not self._lock.acquire(blocking=False):
            this, other = show_value(threading.current_thread().name), show_value(self._inside)
            raise BadInput(
                f"{self._what} is used by thread {this} while thread {other} is "
                "inside next(): wanted one thread at a time; iterate in one and hand batches over by a queue"
            )
        self._inside = threading.current_thread().name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
