"""What an evaluation says: scores, and of what: views, weights, data, and how many clips they are without. Knows no
model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from rich.table import Table


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
            shown = f"{value:g}" if name.startswith("median_rank") else f"{100 * value:.2f} %"
            table.add_row(name, shown, str(self.clips))
        return table
