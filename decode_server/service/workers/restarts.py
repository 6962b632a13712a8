"""When a worker that died is started again, and when there is no point any more. Pure: deaths and times in, times out.

It knows neither processes nor what killed them.
"""

from __future__ import annotations

WINDOW_S = 60.0
DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # by the number of deaths before in the window; the last one stays


class Restarts:
    """The deaths at one slot. The first is forgiven at once, more of them within a minute cost more and more time."""

    def __init__(self) -> None:
        self.failed_starts = 0  # in a row
        self._deaths_s: list[float] = []

    def came_up(self) -> None:
        """A worker at this slot is ready."""
        self.failed_starts = 0

    def died(self, *, now_s: float, was_ready: bool) -> float:
        """Note a death; returns the time at which to start the next worker."""
        if not was_ready:
            self.failed_starts += 1
        self._deaths_s = [death_s for death_s in self._deaths_s if death_s > now_s - WINDOW_S]
        delay_s = DELAYS_S[min(len(self._deaths_s), len(DELAYS_S) - 1)]
        self._deaths_s.append(now_s)
        return now_s + delay_s
