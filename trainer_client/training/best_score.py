"""Which checkpoint of a run was the best by one of its numbers; pure: it knows no files, and not what the number is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from framefeed.errors import BadInput

Better = Literal["min", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number of a run, and whether less or more of it is better."""

    name: str
    better: Better

    @classmethod
    def read(cls, text: str) -> Metric:
        """min:NAME or max:NAME. Raises BadInput for anything else."""
        better, colon, name = text.partition(":")
        if not colon or not name or better not in ("min", "max"):
            raise BadInput(f"--keep-best is {text!r}, wanted min:NAME or max:NAME, e.g. min:loss")
        return cls(name=name, better="min" if better == "min" else "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class BestScore:
    """The best value of a metric so far, and after how many steps that was."""

    metric: Metric
    value: float
    step: int

    def as_json(self) -> dict[str, object]:
        """What a checkpoint says of it."""
        return {"metric": f"{self.metric.better}:{self.metric.name}", "value": self.value, "step": self.step}

    @classmethod
    def read(cls, said: object) -> BestScore | None:
        """What `as_json` said; None for anything else: then a run begins its comparison anew."""
        if not isinstance(said, Mapping):
            return None
        metric, value, step = (said.get(name) for name in ("metric", "value", "step"))
        if not (isinstance(metric, str) and isinstance(value, int | float) and isinstance(step, int) and step >= 0):
            return None
        try:
            return cls(metric=Metric.read(metric), value=float(value), step=step)
        except (BadInput, OverflowError):
            return None


def best_of(best: BestScore | None, metric: Metric, *, value: float, step: int) -> BestScore | None:
    """The better of the best so far and this value. What is no number is never it, and what was best by another
    metric says nothing of this one."""
    before = best if best is not None and best.metric == metric else None
    if math.isnan(value):
        return before
    if before is not None and (value >= before.value if metric.better == "min" else value <= before.value):
        return before
    return BestScore(metric=metric, value=value, step=step)
