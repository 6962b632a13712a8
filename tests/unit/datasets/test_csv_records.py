"""What is wrong with a CSV is said with the line where its record begins; a quote that is never closed is."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefeed.errors import BadInput
from trainer_client.datasets.csv_records import read_csv

HEADER = "video,label\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEADER + 'a,1\nb,"never closed\nc,2\n', 3),
        (HEADER + 'a,"never closed\n' + "b,1\n" * 40_000, 2),
        (HEADER + 'a,"two\nlines"\n\nb,"never closed', 5),
        (HEADER + "a," + "x" * 200_000 + "\n", 2),
        (HEADER + 'a,"said ""so"" and never closed', 2),
    ],
    ids=["unclosed", "unclosed and long", "behind two lines and none", "huge", "doubled quotes"],
)
def test_what_is_wrong_is_said_with_the_line_where_it_begins(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=f"x.csv, line {line}: .*; is each quote closed"):
        list(read_csv(path).records)


@pytest.mark.parametrize("label", ['"a ""b"" c"', 'a "b" c', '"a" b', 'a 5" b'])
def test_odd_quotes_that_end_are_read(tmp_path: Path, label: str) -> None:
    for lines in (f"a,{label}\nb,1\n", f"b,1\na,{label}"):
        path = tmp_path / "x.csv"
        path.write_text(HEADER + lines)
        assert [line for line, _ in read_csv(path).records] == [2, 3]
