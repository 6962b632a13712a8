"""How often work in progress is put on disk: seldom enough to cost little of the time, however long it takes.

Times come as arguments; it reads no clock and writes nothing.
"""

from __future__ import annotations

EVERY_S = 30.0
_SHARE = 0.05  # of the time, at most


class Pace:
    """Told when a write began and ended, it says when the next one is due."""

    def __init__(self, *, now_s: float) -> None:
        self._due_s = now_s + EVERY_S

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to write."""
        return now_s >= self._due_s

    def wrote(self, *, began_s: float, ended_s: float) -> None:
        """A write took from one time to the other."""
        self._due_s = ended_s + max(EVERY_S, (ended_s - began_s) / _SHARE)
