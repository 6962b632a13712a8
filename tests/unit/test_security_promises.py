"""docs/security.md says what tests hold: each line of its threat model names its test, and every test that it names is
there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
MODEL = TEXT.partition("## Threat model")[2].partition("\n## ")[0]
ROWS = [line for line in MODEL.splitlines() if line.startswith("| ")][1:]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


def test_every_line_of_the_threat_model_names_its_test() -> None:
    assert len(ROWS) > 10
    for row in ROWS:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4, row
        assert re.fullmatch(r"`tests/[\w/]+\.py::\w+`", cells[3].strip("| ").strip()), row


def test_budgets_name_theirs() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda text: text.rpartition("/")[2])
def test_the_tests_that_it_names_exist(file: str, name: str) -> None:
    body = ast.parse((ROOT / file).read_text()).body
    assert name in {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT))))
def test_the_files_that_it_names_exist(file: str) -> None:
    assert (ROOT / file).is_file()
