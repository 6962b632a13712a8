"""The report says the same of every verb's inputs, on a terminal and as lines of JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from decode_server.media.media_use import Loss, MediaUse
from decode_server.sources.report import FileReport, Report
from framefeed.errors import BadInput, CorruptMedia

WHOLE = FileReport(file="a.mp4", video="a", use=MediaUse(used_s=10.0, longest_frame_s=0.04))
STILL = FileReport(file="still.mp4", video="still", use=MediaUse(used_s=10.0, longest_frame_s=8.0))
PART = FileReport(
    file="b.mp4",
    video="b",
    use=MediaUse(losses=(Loss(start_s=1.0, end_s=8.5, reason="does not decode"),), notes=("HDR",), used_s=10.0),
)
REFUSED = FileReport(file="c.mp4", use=MediaUse(refused="no frame of it decodes"))


def _shown(report: Report) -> list[str]:
    out = io.StringIO()
    report.show(Console(file=out, width=80))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_table_counts_and_a_line_says_why() -> None:
    assert _shown(Report(files=(WHOLE, STILL, PART, REFUSED), ignored={".txt": 3, "hidden": 1})) == [
        " used whole  used in part  refused  ignored",
        " 2           1             1        4",
        "warning: still.mp4: one frame is on show for 8.0 of its 10.0 s",
        "used in part: b.mp4: left out from 1.00 s to 8.50 s: does not decode",
        "note: b.mp4: HDR",
        "warning: b.mp4: 7.5 of its 10.0 s are lost",
        "refused: c.mp4: no frame of it decodes",
        "ignored: 3 .txt, 1 hidden",
    ]


def test_what_was_not_decoded_is_counted_and_not_called_sound(tmp_path: Path) -> None:
    refused = replace(REFUSED, decoded=False)
    report = Report(files=(WHOLE, replace(WHOLE, decoded=False), replace(PART, decoded=False), refused), ignored={})
    told = "not decoded: 2 of those used; 'framefeed index --check' finds damage inside their pictures"
    assert _shown(report)[2] == told
    report.write(tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["decoded"] for row in rows] == [True, False, False, False]


def test_a_terminal_gets_a_bounded_number_of_lines() -> None:
    lines = _shown(Report(files=(REFUSED,) * 1000, ignored={}))
    assert len(lines) < 110
    assert lines[-1] == "900 more lines: --report FILE has all"


def test_the_file_has_a_line_an_input(tmp_path: Path) -> None:
    Report(files=(WHOLE, PART, REFUSED), ignored={".txt": 3}).write(tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(row.get("file"), row["state"]) for row in rows] == [
        ("a.mp4", "whole"),
        ("b.mp4", "in part"),
        ("c.mp4", "refused"),
        (None, "ignored"),
    ]
    assert rows[1]["losses"] == [{"start_s": 1.0, "end_s": 8.5, "reason": "does not decode"}]
    assert (rows[2]["reason"], rows[3]["suffix"], rows[3]["files"]) == ("no frame of it decodes", ".txt", 3)


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--report .*nowhere/r\.jsonl cannot be written \(No such file"):
        Report(files=(WHOLE,), ignored={}).write(tmp_path / "nowhere" / "r.jsonl")


@pytest.mark.parametrize(("used", "refused", "fails"), [(1, 3, True), (2, 2, False), (3, 1, False), (0, 1, True)])
def test_a_script_does_not_go_on_where_most_is_refused(used: int, refused: int, fails: bool) -> None:
    report = Report(files=(WHOLE,) * used + (REFUSED,) * refused, ignored={".txt": 100})
    if fails:
        with pytest.raises(
            CorruptMedia, match=rf"^{refused} of {used + refused} inputs are refused, more than are used"
        ):
            report.require_mostly_used()
    else:
        report.require_mostly_used()
