"""The verb `check`: every row of annotations is usable or counted, by why not, with its first rows named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framefeed.cli.command import main
from framefeed.manifest import Manifest, Refusal, read_manifest
from framefeed.quarantine import Quarantine, QuarantinedSpan, read_quarantine
from tests.manifests import manifest_of
from trainer_client.datasets.check import Check
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.row_check import CLIPPED, USABLE, check_samples
from trainer_client.datasets.spec import DataSpec
from trainer_client.samples import Sample

EPIC = Path(__file__).parents[4] / "shared/data/epic-kitchens-100"
TABLE = """video,start,end,label
a/one,0,2,cut
a/one,1,nine,cut
on,0,2,cut
a/one,3,2,cut
a/one,9,12,cut
a/one,9,10.5,cut
a/one,20,22,cut
b/two,1,3,cut
b/two,4,6
bad,0,1,cut
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    made = manifest_of({"a/one": 10.0, "b/two": 20.0})
    Manifest(videos=made.videos, refused=(Refusal(path="bad.mp4", reason="it is empty"),)).write(root)
    span = QuarantinedSpan(video="b/two", start_s=2.0, end_s=4.0, reason="damaged", found_by="verify")
    Quarantine([span]).write(root)
    (tmp_path / "rows.csv").write_text(TABLE)
    return root


def test_each_row_is_told_by_what_is_wrong_with_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, report = root.parent / "rows.csv", root.parent / "odd.jsonl"
    assert main(["check", str(root), str(rows), "--report", str(report)]) == 1
    seen = capsys.readouterr()
    assert seen.err.startswith(f"framefeed: 8 of 10 rows of {rows} cannot be used: 2 not readable, 2 not in the ")
    assert seen.err.count("\n") == 1
    for line in (
        "line 3: end is 'nine', wanted seconds",
        "line 10: it has another number of fields than its header",
        "row 1: 'on' [0, 2) s: not in the root; did you mean 'a/one'?",
        "'bad' [0, 1) s: refused when it was indexed: it is empty",
        "'a/one' [3, 2) s: wanted 0 <= start < end",
        "'a/one' [9, 12) s: past the end: it has 10 s",
        "'b/two' [1, 3) s: quarantined: b/two from 2.000 to 4.000 s: damaged",
    ):
        assert line in seen.out
    states = [json.loads(line)["state"] for line in report.read_text().splitlines()]
    assert len(states) == 8
    assert max(map(len, seen.out.splitlines())) <= 100


def test_spans_past_the_end_are_used_up_to_there_where_that_is_wanted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = root.parent / "fixed.csv"
    assert main(["check", str(root), str(root.parent / "rows.csv"), "--clip", "--fixed", str(fixed)]) == 1
    assert "1  usable, cut off at the end" in capsys.readouterr().out
    assert main(["check", str(root), str(fixed)]) == 0
    samples = open_dataset(DataSpec(kind="table", path=fixed, cache=root.parent / "cache"), read_manifest(root))
    assert [(samples[at].start_s, samples[at].end_s) for at in range(len(samples))] == [(0, 2), (9, 10), (9, 10)]


def test_a_script_checks_its_own_samples(root: Path) -> None:
    samples = [
        Sample(video="a/one", start_s=0.0, end_s=1.0),
        Sample(video="a/one", start_s=0.0, end_s=99.0),
        {"video": "a/one"},
    ]
    found = check_samples(samples, read_manifest(root), read_quarantine(root), clip=True)  # type: ignore[arg-type]
    assert (found.rows, found.counts[USABLE], found.counts[CLIPPED], found.unusable) == (3, 1, 1, 1)
    assert found.unread[0][1].startswith("sample 2 of the dataset is dict of 1, wanted a Sample(")


@pytest.mark.skipif(not EPIC.is_dir(), reason="the CSVs of EPIC-Kitchens-100 are not here")
def test_every_row_of_epic_kitchens_is_accounted_for(tmp_path: Path) -> None:
    manifest_of({"P01/P01_11": 400.0, "P02/P02_12": 1200.0, "P03/P03_3": 60.0}).write(tmp_path)
    _, found = Check(root=tmp_path, annotations=EPIC).checked()
    assert found.rows == sum(found.counts.values()) == 9668
    assert 0 < found.counts[USABLE] < 9668


@pytest.mark.slow
def test_a_million_rows_are_checked_in_seconds(tmp_path: Path) -> None:
    manifest_of({f"v{number}": 30.0 for number in range(1000)}).write(tmp_path)
    rows = "".join(f"v{row % 1001},{row % 31},{row % 31 + 2},c{row % 7}\n" for row in range(1_000_000))
    (tmp_path / "rows.csv").write_text("video,start,end,label\n" + rows)
    _, found = Check(root=tmp_path, annotations=tmp_path / "rows.csv").checked()
    assert found.rows == sum(found.counts.values()) == 1_000_000
