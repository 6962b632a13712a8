"""Timeouts: how long to wait for an answer before asking elsewhere, learned from how long answers took.

It knows durations only: no clock, servers or clips. Timed-out attempts count with the time they were given, so that a
fleet that grows slower is given more time instead of being asked in vain for ever.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from framefeed.errors import BadInput
from framefeed.grace import REQUEST_DEADLINE_S

_RECENT = 1000  # answers that count
_REFRESH = 32  # answers between two looks at the quantiles
_SLACK = 3.0  # of the p99: a deadline at the p99 itself would give up one good answer in a hundred


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutLimits:
    """The deadline of an attempt is three times the p99 of recent answers, from `attempt_min_s` to `attempt_s`; before
    `enough` answers were seen it is `attempt_s`. Where that is the smaller one it stands for both.
    """

    attempt_s: float = REQUEST_DEADLINE_S
    attempt_min_s: float = 2.0
    enough: int = 100

    def __post_init__(self) -> None:
        for name in ("attempt_s", "attempt_min_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"is {getattr(self, name):g}, wanted more than 0 seconds", of="loader", field=name)


class TimeoutEstimator:
    """Quantiles of the last thousand durations; a look costs microseconds, a new one is made every 32 answers."""

    def __init__(self, limits: TimeoutLimits) -> None:
        self._limits = limits
        self._recent_s: deque[float] = deque(maxlen=_RECENT)
        self._fresh = 0
        self.p95_s: float | None = None
        self.p99_s: float | None = None

    def took(self, duration_s: float) -> None:
        """An answer took so long, or an attempt was given up after so long."""
        self._recent_s.append(duration_s)
        self._fresh += 1
        if len(self._recent_s) >= self._limits.enough and (self.p99_s is None or self._fresh >= _REFRESH):
            ordered = sorted(self._recent_s)
            self.p95_s, self.p99_s = ordered[len(ordered) * 95 // 100], ordered[len(ordered) * 99 // 100]
            self._fresh = 0

    @property
    def deadline_s(self) -> float:
        """What a server is given for a clip now."""
        if self.p99_s is None:
            return self._limits.attempt_s
        return min(max(_SLACK * self.p99_s, self._limits.attempt_min_s), self._limits.attempt_s)
