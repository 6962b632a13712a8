"""What a panel says, and the Grafana JSON of a dashboard of them; knows no metric.

Grafana reads version 1 of its format from files. Ids are set here, for the library gives rows none.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import StackingConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import DataSourceRef, StackingMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, GridPos
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE_UID = "framefeed-prometheus"  # provisioning/datasources/prometheus.yaml
Kind = Literal["line", "stack", "number", "heat"]
_WIDTH, _HEIGHT = 24, 8  # of a row of panels, in Grafana's units
_NUMBER_HEIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A title, what it means and what to do about it, a unit of Grafana's, and (expression, legend) of each query."""

    title: str
    text: str
    unit: str
    queries: Sequence[tuple[str, str]]
    kind: Kind = "line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels side by side, under a title."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A dashboard: its file is `uid`.json."""

    uid: str
    title: str
    text: str
    rows: Sequence[Row]

    @property
    def panels(self) -> list[Panel]:
        """All of them, in order."""
        return [panel for row in self.rows for panel in row.panels]

    def render(self) -> str:
        """The JSON that Grafana provisions; the same for the same board."""
        with warnings.catch_warnings():  # version 1's builders are all marked as deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            body = json.loads(JSONEncoder(sort_keys=True, indent=1).encode(self._build()))
        for number, panel in enumerate(body["panels"], start=1):
            panel["id"] = number
        return json.dumps(body, indent=1, sort_keys=True) + "\n"

    def _build(self) -> Any:
        board = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.text)
            .tags(["framefeed"])
            .readonly()
            .time("now-30m", "now")
            .refresh("10s")
            .tooltip(DashboardCursorSync.CROSSHAIR)
        )
        y = 0
        for row in self.rows:
            board = board.with_row(dashboard.Row(row.title).grid_pos(GridPos(h=1, w=_WIDTH, x=0, y=y)))
            y += 1
            width = _WIDTH // len(row.panels)
            height = _NUMBER_HEIGHT if all(panel.kind == "number" for panel in row.panels) else _HEIGHT
            for place, panel in enumerate(row.panels):
                board = board.with_panel(_panel(panel, GridPos(h=height, w=width, x=place * width, y=y)))
            y += height
        return board.build()


def _panel(panel: Panel, where: GridPos) -> Any:
    kinds: dict[str, Any] = {"number": stat.Panel, "heat": heatmap.Panel}
    builder = kinds.get(panel.kind, timeseries.Panel)()
    builder = (
        builder.title(panel.title)
        .description(panel.text)
        .unit(panel.unit)
        .datasource(DataSourceRef(type_val="prometheus", uid=SOURCE_UID))
        .grid_pos(where)
    )
    if panel.kind == "stack":
        builder = builder.stacking(StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    for letter, (expression, legend) in zip("ABCDEFGH", panel.queries, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).range()
        builder = builder.with_target(query.format(PromQueryFormat.HEATMAP) if panel.kind == "heat" else query)
    return builder
