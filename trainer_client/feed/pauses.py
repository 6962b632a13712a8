"""Pauses: how long a thread that should listen to others did not, whatever kept it. Pure; it knows times only.

A stopped process, a consumer that holds the interpreter's lock, a data set on slow storage: to the thread all look
alike, as more time between two of its own steps than they take. The servers are not to be blamed for that time.
"""

from __future__ import annotations

STEP_S = 0.05  # a step may take so long by itself: to receive a large clip, or many small ones


class Pauses:
    """The thread calls step() after each of its steps; take_s() says what they took beyond what they should."""

    def __init__(self, now_s: float) -> None:
        self._stepped_s = now_s
        self._paused_s = 0.0

    def step(self, now_s: float, *, wait_s: float = 0.0) -> None:
        """A step is over; it may have waited for `wait_s`."""
        self._paused_s += max(now_s - self._stepped_s - wait_s - STEP_S, 0.0)
        self._stepped_s = now_s

    def take_s(self) -> float:
        """Seconds of pauses since the last call."""
        paused_s, self._paused_s = self._paused_s, 0.0
        return paused_s
