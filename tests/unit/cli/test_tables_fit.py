"""The tables that verbs print are whole in 80 columns: no cell is cut, no word broken."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from framefeed_bench.models import memory_tables
from framefeed_bench.tables import decode_tables, front_table, sampler_table, transport_table

RESULTS = Path(__file__).parents[3] / "bench/results"


def _of(name: str) -> dict[str, object]:
    result: dict[str, object] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def _counted() -> list[dict[str, object]]:
    return json.loads((RESULTS / "models.json").read_text())["counted"]["bf16 on CUDA"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("decode", lambda: decode_tables(_of("decode"))),
        ("transport", lambda: [transport_table(_of("transport"))]),
        ("sampler", lambda: [sampler_table(_of("sampler"))]),
        ("front", lambda: [front_table(_of("front"))]),
        ("models", lambda: memory_tables(_counted())),
    ],
)
def test_a_bench_s_tables_are_whole_in_80_columns(name: str, tables: object) -> None:
    assert callable(tables)
    made: Iterable[Table] = tables()
    shown = 0
    for table in made:
        console = Console(width=80, record=True, file=None, quiet=False)
        with console.capture() as capture:
            console.print(table)
        text = capture.get()
        words = {
            word for column in table.columns for cell in [column.header, *column.cells] for word in str(cell).split()
        }
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80
        printed = set(text.replace("┃", " ").replace("│", " ").split())
        assert words <= printed, f"{name}: words that are broken: {sorted(words - printed)}"
        shown += 1
    assert shown
