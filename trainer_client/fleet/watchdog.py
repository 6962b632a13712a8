"""The watchdog: whether a run has stood still for too long. It knows times only; who waits for what, others say."""

from __future__ import annotations

from framefeed.errors import FramefeedError


class Stalled(FramefeedError):
    """No clip arrived for longer than the run may stand still; the message names who waits for what, and where."""

    code = "stalled"


class Watchdog:
    """Barks after `stall_s` seconds in which something was wanted and nothing came, and again after as many more."""

    def __init__(self, stall_s: float) -> None:
        self.stall_s = stall_s
        self._progress_s = self._barked_s = 0.0

    def progress(self, now_s: float) -> None:
        """Something came, or begins to be wanted."""
        self._progress_s = self._barked_s = now_s

    def postpone(self, by_s: float) -> None:
        """So much time does not count: nobody could see progress."""
        self._progress_s += by_s
        self._barked_s += by_s

    def still_s(self, now_s: float) -> float:
        """Seconds without progress."""
        return now_s - self._progress_s

    @property
    def due_s(self) -> float:
        """When it barks, if nothing comes before."""
        return self._barked_s + self.stall_s

    def barks(self, now_s: float) -> bool:
        """Whether it is time to bark; then it is quiet for another `stall_s`."""
        if now_s - self._barked_s < self.stall_s:
            return False
        self._barked_s = now_s
        return True
