"""Which checkpoint of a run was the best by one of its numbers; pure: it knows no files, and not what the number is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from framefeed.errors import BadInput
from framefeed.show_value import show_value

Better = Literal["min", "max"]
HELD_OUT = ("val/", "val_average/")  # what names of scores of held-out samples begin with


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number of a run, and whether less or more of it is better."""

    name: str
    better: Better

    @property
    def is_of_held_out(self) -> bool:
        """Whether it is a score of held-out samples, and not one of the steps' own numbers."""
        return self.name.startswith(HELD_OUT)

    @classmethod
    def read(cls, text: str) -> Metric:
        """min:NAME or max:NAME. Raises BadInput for anything else."""
        better, colon, name = text.partition(":")
        if not colon or not name or better not in ("min", "max"):
            raise BadInput(f"--keep-best is {show_value(text)}, wanted min:NAME or max:NAME, e.g. min:loss")
        return cls(name=name, better="min" if better == "min" else "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class BestScore:
    """The best value of a metric so far, after how many steps that was, and what tells the clips that it is of."""

    metric: Metric
    value: float
    step: int
    of: str = ""

    def as_json(self) -> dict[str, object]:
        """What a checkpoint says of it."""
        return {
            "metric": f"{self.metric.better}:{self.metric.name}",
            "value": self.value,
            "step": self.step,
            "of": self.of,
        }

    @classmethod
    def read(cls, said: object) -> BestScore | None:
        """What `as_json` said; None for anything else: then a run begins its comparison anew."""
        if not isinstance(said, Mapping):
            return None
        metric, value, step, of = (said.get(name) for name in ("metric", "value", "step", "of"))
        if not (isinstance(metric, str) and isinstance(value, int | float) and isinstance(step, int) and step >= 0):
            return None
        try:
            return cls(metric=Metric.read(metric), value=float(value), step=step, of=str(of or ""))
        except (BadInput, OverflowError):
            return None


def best_of(best: BestScore | None, metric: Metric, *, value: float, step: int, of: str = "") -> BestScore | None:
    """The better of the best so far and this value. What is no number is never it, and what was best by another
    metric, or on other clips, says nothing of this one."""
    before = best if best is not None and (best.metric, best.of) == (metric, of) else None
    if math.isnan(value):
        return before
    if before is not None and (value >= before.value if metric.better == "min" else value <= before.value):
        return before
    return BestScore(metric=metric, value=value, step=step, of=of)
