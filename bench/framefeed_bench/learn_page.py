"""`python -m framefeed_bench.learn_page` writes docs/learning.md's table and figure from bench/results/learn.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from framefeed_bench.learn_studies import STUDIES

ROOT = Path(__file__).parents[2]
_BEGIN, _END = "<!-- bench learn -->\n", "\n<!-- end -->"
_HEADS = ("study", "figure", "value", "wanted")
_COLUMNS = 3

Result = Mapping[str, Any]


def learn_table(result: Result) -> Table:
    """The figures for a terminal."""
    table = Table(*_HEADS)
    for cells in _rows(result):
        table.add_row(*cells)
    return table


def with_figures(page: str, result: Result) -> str:
    """The page with the text between its markers made anew from the result."""
    assert page.count(_BEGIN) == 1, "docs/learning.md has no place for the figures of bench learn"
    before, _, rest = page.partition(_BEGIN)
    lines = ["| " + " | ".join(_HEADS) + " |", "|---" * len(_HEADS) + "|"]
    lines += ["| " + " | ".join(cells) + " |" for cells in _rows(result)]
    spent = {name: one["cpu_s"] for name, one in studies_of(result).items()}
    if scenes_cpu_s := result["scenes_cpu_s"]:  # 0 where studies were put together of several runs
        spent["making scenes"] = scenes_cpu_s
    cpu = ", ".join(f"{name.replace('_', ' ')} {cpu_s / 60:.1f}" for name, cpu_s in spent.items())
    total = sum(spent.values()) / 60
    where = {f"{one['processor']}, commit {one['commit']}, {one['date']}" for one in studies_of(result).values()}
    if absent := [name.replace("_", " ") for name in STUDIES if name not in studies_of(result)]:
        lines += ["", f"Not measured yet: {', '.join(absent)}."]
    lines += ["", f"CPU-minutes: {cpu}; together {total:.1f}. {'; '.join(sorted(where))}."]
    return before + _BEGIN + "\n".join(lines) + _END + rest.partition(_END)[2]


def draw_losses(path: Path, result: Result) -> None:
    """Each study's training losses over steps, as a PNG."""
    studies = {name: study["losses"] for name, study in studies_of(result).items() if study["losses"]}
    rows = -(-len(studies) // _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 3 * rows), layout="constrained")
    for number, (name, losses) in enumerate(studies.items()):
        axes = figure.add_subplot(rows, _COLUMNS, number + 1)
        for run, curve in losses.items():
            axes.plot(*zip(*curve, strict=True), label=run.replace("_", " "))
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel("training loss", fontsize=8)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=90)


def studies_of(result: Result) -> Mapping[str, Result]:
    """The studies of a result by name."""
    studies: Mapping[str, Result] = result["studies"]
    return studies


def _rows(result: Result) -> Iterator[tuple[str, str, str, str]]:
    for name, study in studies_of(result).items():
        for number, one in enumerate(study["figures"]):
            yield "" if number else name.replace("_", " "), one["what"], f"{100 * one['value']:.1f} %", _wanted(one)


def _wanted(figure: Result) -> str:
    least, most = figure["at_least"], figure["at_most"]
    said = f"≥ {100 * least:.0f} %" if least is not None else f"≤ {100 * most:.0f} %" if most is not None else ""
    return said if figure["holds"] else f"**{said}: missed**"


if __name__ == "__main__":
    found = json.loads((ROOT / "bench/results/learn.json").read_text())
    (ROOT / "docs/learning.md").write_text(with_figures((ROOT / "docs/learning.md").read_text(), found))
    draw_losses(ROOT / "docs/learning.png", found)
