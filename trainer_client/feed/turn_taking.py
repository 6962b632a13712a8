"""Whose turn it is to use what one thread at a time may use: a second one that comes meanwhile is refused.

It knows nothing of what is used. A hand-over from thread to thread, one after the other, is no misuse. There is no lock
that an exception from a signal handler could leave taken: a turn is over once its `over` is set, by a plain assignment,
before and after which CPython runs no handler.
"""

from __future__ import annotations

import threading

from framefeed.errors import BadInput
from framefeed.show_value import show_value


class Turn:
    """One thread's use, from take() until `over` is set."""

    __slots__ = ("over", "thread")

    def __init__(self) -> None:
        self.thread = threading.current_thread().name
        self.over = False


class TurnTaking:
    """It refuses instead of making wait: two threads that take turns by chance have each some of what comes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._number = 0  # of the last turn that began
        self._turns: dict[int, Turn] = {}  # the first to set a number has that turn; the next one may when it is over

    def take(self, turn: Turn) -> None:
        """Begin a turn, made before the `try` whose every end sets its `over`.

        Raises BadInput while another thread is inside, or this one by a signal handler.
        """
        while True:
            number = self._number
            while (holder := self._turns.setdefault(number, turn)) is not turn:
                if not holder.over:
                    this, other = show_value(turn.thread), show_value(holder.thread)
                    raise BadInput(
                        f"{self._what} is used by thread {this} while thread {other} is inside "
                        "next(): wanted one thread at a time; iterate in one and hand batches over by a queue"
                    )
                number += 1
                if self._number < number:  # noqa: PLR1730 - to the assignment no other thread runs, nor a handler
                    self._number = number
            if self._number <= number:
                break
            self._turns.pop(number, None)  # another thread had later turns, and forgot this one's, since it was read
        for before in list(self._turns):
            if before < number:
                self._turns.pop(before, None)
