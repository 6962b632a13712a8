"""Connections that are made and cut again and again: when that is worth a line. Pure; it knows no sockets."""

from __future__ import annotations

from collections import deque

CUTS, WITHIN_S, QUIET_S = 10, 10.0, 60.0


class Churn:
    """Counts what was made and cut within the last 10 s; times are the caller's, in seconds, and never go back."""

    def __init__(self) -> None:
        self._made: deque[float] = deque(maxlen=CUTS)
        self._cut: deque[float] = deque(maxlen=CUTS)
        self._quiet_until_s = 0.0

    def made(self, now_s: float) -> None:
        """A connection was made."""
        self._made.append(now_s)

    def cut(self, now_s: float) -> bool:
        """A connection was cut; whether to say that 10 were made and 10 cut within 10 s. Once a minute at most."""
        self._cut.append(now_s)
        recent = all(len(times) == CUTS and times[0] >= now_s - WITHIN_S for times in (self._made, self._cut))
        if not recent or now_s < self._quiet_until_s:
            return False
        self._quiet_until_s = now_s + QUIET_S
        return True
