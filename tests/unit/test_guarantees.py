"""docs/guarantees.md promises what tests hold: every promise has its row, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "guarantees.md").read_text().splitlines()
    if line.startswith("| P")
]


def test_every_promise_has_one_row_with_all_its_cells() -> None:
    assert [row[0] for row in ROWS] == [f"P{number}" for number in range(1, 23)]
    assert {len(row) for row in ROWS} == {4}
    assert all(row[1].startswith("**") for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_tests_of_a_promise_exist(row: list[str]) -> None:
    names = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[3])
    assert len(names) == row[3].count("::") >= 2, "a promise has at least two tests, each as `file::test`"
    for file, name in names:
        assert name in _tests(ROOT / file), f"{file} has no {name}"


def _tests(path: Path) -> set[str]:
    """Names of the functions, and of classes and aliases as Hypothesis' state machines have them."""
    body = ast.parse(path.read_text()).body
    named = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = (target for node in body if isinstance(node, ast.Assign) for target in node.targets)
    return named | {target.id for target in targets if isinstance(target, ast.Name)}
