"""How busy the front's one thread is: the share of its time that it works, lately and in all. Pure; times are given.

Whatever goes through a server waits for this thread, so it is where a server of many workers is full first.
"""

from __future__ import annotations

import math

_LATELY_S = 1.0  # what lies so far back counts for 1/e


class FrontLoad:
    """Turns of a loop, each of which begins when its wait ends."""

    def __init__(self, now_s: float) -> None:
        self.busy_s = 0.0  # in all
        self.busy = 0.0  # share of its time lately, 0 to 1
        self.longest_s = 0.0  # of its turns
        self.turn_s = now_s  # when this turn began
        self._ended_s = now_s

    def begin(self, now_s: float) -> None:
        """A wait ended."""
        self._blend(now_s - self._ended_s, worked=0.0)
        self.turn_s = now_s

    def end(self, now_s: float) -> None:
        """A turn ended."""
        worked_s = now_s - self.turn_s
        self.busy_s += worked_s
        self.longest_s = max(self.longest_s, worked_s)
        self._blend(worked_s, worked=1.0)
        self._ended_s = now_s

    def _blend(self, lasted_s: float, *, worked: float) -> None:
        keeps = math.exp(-max(lasted_s, 0.0) / _LATELY_S)
        self.busy = keeps * self.busy + (1 - keeps) * worked

    def __repr__(self) -> str:
        return f"FrontLoad({self.busy:.2f} lately, {self.busy_s:.1f} s in all)"
