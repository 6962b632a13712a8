"""What held at which time: a short history of one thing that is something else now and then; knows no clock.

It is bounded: what is longer ago than its last thousand changes is taken to be what it was at the oldest of them.
"""

from __future__ import annotations

import math
from collections import deque

_REMEMBERED = 1024


class Spans:
    """A state, "" or a word, over time."""

    def __init__(self) -> None:
        self._since: deque[tuple[float, str]] = deque([(-math.inf, "")], maxlen=_REMEMBERED)

    def note(self, state: str, now_s: float) -> None:
        """From now on it is this."""
        if state != self._since[-1][1]:
            self._since.append((now_s, state))

    def total_s(self, state: str, start_s: float, end_s: float) -> float:
        """For how many seconds between the two it was this."""
        total_s, at_s = 0.0, start_s
        for seen, until_s in self.between(start_s, end_s):
            total_s += (until_s - at_s) * (seen == state)
            at_s = until_s
        return total_s

    def between(self, start_s: float, end_s: float) -> list[tuple[str, float]]:
        """The states from start to end, each with its end, in order; empty if there is no time between."""
        found: list[tuple[str, float]] = []
        until_s = end_s
        for since_s, state in reversed(self._since):
            if until_s <= start_s:
                break
            if since_s < until_s:
                found.append((state, until_s))
                until_s = since_s
        return found[::-1]
