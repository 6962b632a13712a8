"""What an evaluation says: scores, and of what: views, weights, data, and how many clips they are without. Knows no
model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.evaluate.collect import Collected
from trainer_client.evaluate.views_of_clips import told

_NO_SHARES = ("median_rank", "loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """What became of the annotations' rows: `samples` of them were used and `left_out`, by why, were not; of the
    samples `scored` had a clip; `stood_in` clips were replaced and `missing` not there, of samples x views.
    """

    rows: int
    samples: int
    scored: int
    stood_in: int
    missing: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """In the line of each score."""
        lost = [f"{count} rows {why}" for why, count in self.left_out.items()]
        lost += [f"{count} clips {why}" for why, count in (("missing", self.missing),) if count]
        lost += [f"{self.stood_in} of them stood in for"] if self.stood_in else []
        return "; ".join([f"{self.scored:,} of {self.rows:,} rows", *lost])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What was scored on: samples, the clips of them, and which decoder made these."""

    dataset: AnnotatedDataset
    policy: ClipPolicy
    decoder: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One evaluation. Equal inputs make equal reports, on however many processes: it says no time and no place."""

    metric: str
    scores: Mapping[str, float]
    views: Mapping[str, object]
    weights: Mapping[str, object]
    data: Mapping[str, object]
    clips: Clips

    def as_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def table(self) -> Table:
        """A row for each score, shares of 1 in per cent."""
        views = ", ".join(f"{name} {value}" for name, value in self.views.items())
        title = f"{self.metric}\n{views}\nweights {self.weights['fingerprint']}\ndata {self.data['fingerprint']}"
        table = Table(title=title, title_justify="left")
        table.add_column("score")
        table.add_column("value", justify="right")
        table.add_column("of")
        for name, value in self.scores.items():
            table.add_row(name, shown(name, value), str(self.clips))
        return table

    def line(self) -> str:
        """All scores, and what they are of, in one line."""
        return f"{', '.join(f'{name} {shown(name, value)}' for name, value in self.scores.items())} ({self.clips})"


def report_of(
    metric: str, scores: Mapping[str, float], *, collected: Collected, weights: Mapping[str, object], source: Source
) -> Report:
    """What an evaluation says, of scores and the clips that they are of."""
    dataset = source.dataset
    return Report(
        metric=metric,
        scores=scores,
        views=told(source.policy),
        weights=weights,
        data={
            "annotations": dataset.name,
            "fingerprint": dataset.fingerprint,
            "videos": dataset.identity,
            "decoder": source.decoder,
        },
        clips=Clips(
            rows=dataset.annotated,
            samples=len(dataset),
            scored=int(np.count_nonzero(collected.found)),
            stood_in=collected.stood_in,
            missing=collected.missing_clips,
            left_out=dataset.left_out,
        ),
    )


def weights_said(path: Path, fingerprint: str, *, average: bool, by: str) -> dict[str, object]:
    """Which weights were scored, and in which precision."""
    return {"path": str(path), "fingerprint": fingerprint, "average": average, "precision": by}


def shown(name: str, value: float) -> str:
    """A score as people read it: shares in per cent, ranks and losses as they are."""
    return f"{value:g}" if name.startswith(_NO_SHARES) else f"{100 * value:.2f} %"
