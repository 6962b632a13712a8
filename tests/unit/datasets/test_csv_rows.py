"""Rows of CSV files: each has the line that it begins on, and so has what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefeed.errors import BadInput
from trainer_client.datasets.csv_rows import CsvRows

HEADER = "video,label\n"


def rows_of(folder: Path, text: str) -> CsvRows:
    path = folder / "x.csv"
    path.write_text(text)
    return CsvRows(path, what="table x.csv")


def test_rows_have_the_line_that_they_begin_on(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, HEADER + 'a,"two\nlines"\n\nb,2\nc\nd,3,4\n')
    assert list(rows.names) == ["video", "label"]
    assert list(rows) == [
        (2, {"video": "a", "label": "two\nlines"}),
        (5, {"video": "b", "label": "2"}),
        (6, {"video": "c", "label": None}),
        (7, {"video": "d", "label": "3", None: ["4"]}),
    ]


@pytest.mark.parametrize("text", ["", "\n", "\n\n"])
def test_a_file_of_nothing_has_no_names_and_no_rows(tmp_path: Path, text: str) -> None:
    rows = rows_of(tmp_path, text)
    assert list(rows.names) == []
    assert list(rows) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEADER + 'a,1\nb,"never closed\nc,2\n', 3),
        (HEADER + 'a,"never closed\n' + "b,1\n" * 40_000, 2),
        (HEADER + 'a,"two\nlines"\n\nb,"never closed', 5),
        (HEADER + "a," + "x" * 200_000 + "\n", 2),
        (HEADER + 'a,"said ""so"" and never closed', 2),
        ('"video,label\na,1\n', 1),
    ],
    ids=["unclosed", "unclosed and long", "behind two lines and none", "huge", "doubled quotes", "header"],
)
def test_what_is_wrong_is_said_with_the_line_where_it_begins(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(BadInput, match=f"^table x.csv, line {line}: .*; is each quote closed"):
        list(rows_of(tmp_path, text))


@pytest.mark.parametrize("label", ['"a ""b"" c"', 'a "b" c', '"a" b', 'a 5" b'])
def test_odd_quotes_that_end_are_read_as_they_always_were(tmp_path: Path, label: str) -> None:
    assert [line for line, _ in rows_of(tmp_path, f"{HEADER}a,{label}\nb,1\n")] == [2, 3]
    assert [line for line, _ in rows_of(tmp_path, f"{HEADER}b,1\na,{label}")] == [2, 3]
