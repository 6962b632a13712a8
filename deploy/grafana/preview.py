"""Draws dashboards as pictures for the docs, from their JSON and a Prometheus' answers; it knows no metric.

    python -m deploy.grafana.preview http://127.0.0.1:9090 --out docs --minutes 5

A preview: the same panels, places, queries, legends and units as Grafana draws, in matplotlib's own hand.
"""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from deploy.grafana.dashboards import BOARDS, FOLDER
from framefeed.errors import FramefeedError

_UNIT_IN, _COLUMN_IN = 0.32, 0.62  # of Grafana's grid: height of a row, width of a column
_MARGIN_IN = 0.9  # above the first panel
_RATE_INTERVAL = "1m"  # what Grafana would put in the place of $__rate_interval, at least
_LEGEND_LINES = 6
_STEPS = 120
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: labels, times in seconds since the epoch, and values (numbers only)."""

    labels: Mapping[str, str]
    times_s: Sequence[float]
    values: Sequence[float]


Ask = Callable[[str], Sequence[Series]]  # an expression's series over the window that is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is drawn: from when to when, in seconds since the epoch."""

    start_s: float
    end_s: float

    def ask(self, url: str) -> Ask:
        """Ask a Prometheus at `url` by query_range; each answer may take 10 s. Raises FramefeedError without one."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        step_s = max((self.end_s - self.start_s) / _STEPS, 1.0)

        def ask(expression: str) -> Sequence[Series]:
            query = {"query": expression, "start": self.start_s, "end": self.end_s, "step": step_s}
            try:
                with opener.open(f"{url}/api/v1/query_range?{urllib.parse.urlencode(query)}", timeout=10) as answer:
                    result = json.load(answer)["data"]["result"]
            except OSError as error:
                raise FramefeedError(f"preview: {url} does not answer {expression}: {error}") from None
            return [
                Series(
                    labels=one["metric"],
                    times_s=[at_s for at_s, _ in one["values"]],
                    values=[float(value) for _, value in one["values"]],
                )
                for one in result
            ]

        return ask


def draw(board: Mapping[str, Any], ask: Ask, window: Window) -> Figure:
    """The picture of a dashboard's JSON (version 1). Blocks on `ask` once for each query."""
    panels = board["panels"]
    units = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    size = (24 * _COLUMN_IN, units * _UNIT_IN + _MARGIN_IN)
    figure = Figure(figsize=size, dpi=75, facecolor="#f4f5f5")
    figure.text(0.012, 1 - 0.3 / size[1], board["title"], fontsize=17, weight="bold")
    said = "a preview: this dashboard's panels and queries, answered by a real Prometheus, and not drawn by Grafana"
    figure.text(0.012, 1 - 0.62 / size[1], said, fontsize=10, color="#666")
    for panel in panels:
        place = panel["gridPos"]
        left, top = place["x"] / 24, 1 - (_MARGIN_IN + place["y"] * _UNIT_IN) / size[1]
        width, height = place["w"] / 24, place["h"] * _UNIT_IN / size[1]
        if panel["type"] == "row":
            figure.text(left + 0.012, top - 0.7 * height, panel["title"], fontsize=12, color="#333")
            continue
        pad_x, pad_bottom, pad_top = 0.033, 0.3 / size[1], 0.36 / size[1]
        box = (left + pad_x, top - height + pad_bottom, width - pad_x - 0.008, height - pad_bottom - pad_top)
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=9.5 if place["w"] > 4 else 8, loc="left", weight="bold")
        _draw_panel(axes, panel, ask, window)
    return figure


def _draw_panel(axes: Axes, panel: Mapping[str, Any], ask: Ask, window: Window) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    found = [
        (legend(target["legendFormat"], series.labels), series)
        for target in panel["targets"]
        for series in ask(target["expr"].replace("$__rate_interval", _RATE_INTERVAL))
        if len(series.values)
    ]
    if not found:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "No data", ha="center", va="center", color="#999", transform=axes.transAxes)
    elif panel["type"] == "stat":
        _draw_numbers(axes, found, defaults["unit"])
    else:
        axes.set_xlim(window.start_s, window.end_s)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda at_s, _: time.strftime("%H:%M:%S", time.gmtime(at_s))))
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(labelsize=7, length=2)
        if panel["type"] == "heatmap":
            _draw_heat(axes, found)
        else:
            stacked = defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal"
            _draw_lines(axes, found, defaults["unit"], stacked=stacked)


def legend(form: str, labels: Mapping[str, str]) -> str:
    """What a series is called: `{{label}}` is its label's value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)


def in_unit(value: float, unit: str) -> str:
    """A number as Grafana would write it in one of the units that the boards use."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    behind = {"bytes": "B", "Bps": "B/s", "ops": "/s"}.get(unit, "")
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{behind}"
    return f"{value:.3g} {behind}".rstrip()


def _draw_numbers(axes: Axes, found: Sequence[tuple[str, Series]], unit: str) -> None:
    axes.set_axis_off()
    for number, (name, series) in enumerate(found):
        at = (number + 0.5) / len(found)
        last = in_unit(series.values[-1], unit)
        size = {1: 19, 2: 14}.get(len(found), 9)
        axes.text(at, 0.62, last, ha="center", va="center", fontsize=size, color="#1f60c4", transform=axes.transAxes)
        axes.text(at, 0.12, name, ha="center", va="center", fontsize=7.5, color="#555", transform=axes.transAxes)


def _draw_lines(axes: Axes, found: Sequence[tuple[str, Series]], unit: str, *, stacked: bool) -> None:
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: in_unit(value, unit)))
    shown = sorted(found, key=lambda one: -max(one[1].values))
    if stacked:
        times_s = sorted({at_s for _, series in found for at_s in series.times_s})
        layers = [np.interp(times_s, series.times_s, series.values, left=0, right=0) for _, series in shown]
        axes.stackplot(times_s, layers, labels=[name for name, _ in shown], alpha=0.6)
    else:
        for name, series in shown:
            marker = "." if len(series.values) == 1 else ""  # a line of one point is not seen
            axes.plot(series.times_s, series.values, label=name, linewidth=1.1, marker=marker)
    low, high = axes.get_ylim()
    some = any(value for _, series in found for value in series.values)
    axes.set_ylim((min(low, 0.0), max(high, 0.0)) if some else (0.0, 1.0))
    handles, labels = axes.get_legend_handles_labels()
    more = [f"… {len(labels) - _LEGEND_LINES} more"] if len(labels) > _LEGEND_LINES else []
    if more:
        handles, labels = handles[: _LEGEND_LINES + 1], labels[:_LEGEND_LINES] + more
    axes.legend(handles, labels, fontsize=6.5, loc="best", framealpha=0.6, borderpad=0.3, labelspacing=0.2)


def _draw_heat(axes: Axes, found: Sequence[tuple[str, Series]]) -> None:
    """Counts of a histogram's buckets, of each alone: Prometheus' are of all up to a bound."""
    rows = sorted(found, key=lambda one: float(one[0]))
    times_s = sorted({at_s for _, series in rows for at_s in series.times_s})
    up_to = np.array([np.interp(times_s, series.times_s, series.values, left=0, right=0) for _, series in rows])
    each = np.clip(np.diff(up_to, axis=0, prepend=0), 0, None)
    axes.pcolormesh(times_s, np.arange(len(rows)), each, cmap="YlOrRd", shading="nearest")
    every = max(len(rows) // 6, 1)
    axes.set_yticks(range(0, len(rows), every), [in_unit(float(name), "s") for name, _ in rows[::every]])


def committed(uid: str) -> Mapping[str, Any]:
    """A dashboard's JSON as Grafana reads it."""
    board: Mapping[str, Any] = json.loads((FOLDER / f"{uid}.json").read_text())
    return board


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Draw each dashboard to OUT/UID.png, with what a Prometheus has of the last minutes."""

    prometheus: Annotated[str, tyro.conf.Positional]
    """Its address, http://HOST:PORT."""
    out: Path = Path("docs")
    """Folder of the pictures."""
    minutes: float = 5.0
    """What is drawn, up to now."""

    def run(self) -> None:
        """Draw all, and print their names. Raises FramefeedError if Prometheus does not answer."""
        end_s = time.time()
        window = Window(start_s=end_s - 60 * self.minutes, end_s=end_s)
        for board in BOARDS:
            path = self.out / f"{board.uid}.png"
            draw(committed(board.uid), window.ask(self.prometheus), window).savefig(path)
            print(path)


if __name__ == "__main__":
    try:
        tyro.cli(Preview).run()
    except FramefeedError as error:
        raise SystemExit(f"preview: {error}") from None
