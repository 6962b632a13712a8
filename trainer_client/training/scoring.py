"""Scores of held-out samples as a run is told them, and what it asks of whoever makes them; knows no metric or data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from trainer_client.training.loop import Evaluates


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """An evaluation's numbers by name, val/mAP, after `step` steps; `of` tells those that may be compared, as they are
    of the same clips; `lines` say them.
    """

    step: int
    values: Mapping[str, float]
    of: str
    lines: tuple[str, ...] = ()


class Scoring(Evaluates, Protocol):
    """Who scores a run. `on_scores` are called with each evaluation's scores on every rank, in turn."""

    on_scores: list[Callable[[Scores], None]]

    def begin(self, *, after: int | None) -> None:
        """The run goes on after so many steps; None: it begins. A collective."""
        ...
