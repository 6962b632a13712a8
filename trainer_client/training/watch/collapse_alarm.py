"""Whether a run's features have collapsed, by their spread and rank over the last steps; pure, and stops nothing.

A model that gives every clip the same features, or features along one line, goes on with a loss that looks well.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from trainer_client.training.tasks.feature_spread import RANK, SPREAD

_STEPS = 50  # that are looked at together, and the least before anything is said: a new model's features lie together
_LOST = 0.1  # of the most there was
_FLAT = 0.01  # of features of length 1
_BACK = 2.0  # times what raised it: then it is over


class CollapseAlarm:
    """Takes each step's numbers. `is_raised` from when the mean spread of 50 steps is below .01, or a tenth of the most
    that it was, or the directions beyond the first in which clips differ are a tenth of what they were; until all are
    twice as high."""

    def __init__(self) -> None:
        self._last = {name: deque[float](maxlen=_STEPS) for name in (SPREAD, RANK)}
        self._most = dict.fromkeys(self._last, 0.0)
        self.is_raised = False

    @property
    def means(self) -> dict[str, float]:
        """Means of the last steps by name; nothing of a task that tells none."""
        return {name: sum(values) / len(values) for name, values in self._last.items() if values}

    def add(self, step: int, parts: Mapping[str, float]) -> str:
        """Take one step in. Gives one line when the alarm is raised or over, else ""."""
        for name, values in self._last.items():
            if math.isfinite(value := parts.get(name, math.nan)):
                values.append(value)
        if any(len(values) < _STEPS for values in self._last.values()):
            return ""
        means = self.means
        self._most = {name: max(most, means[name]) for name, most in self._most.items()}
        was, times = self.is_raised, _BACK if self.is_raised else 1.0
        self.is_raised = means[SPREAD] < times * max(_FLAT, _LOST * self._most[SPREAD]) or means[
            RANK
        ] - 1 < times * _LOST * (self._most[RANK] - 1)
        if self.is_raised == was:
            return ""
        said = f"feature std {means[SPREAD]:.3g} (most {self._most[SPREAD]:.3g}), rank {means[RANK]:.3g} "
        said += f"(most {self._most[RANK]:.3g}) over {_STEPS} steps"
        if was:
            return f"step {step}: features are apart again: {said}"
        return f"step {step}: features collapse: {said}; the run goes on, but what it learns now tells clips less apart"
