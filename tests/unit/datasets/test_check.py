"""The verb `check`: every row of annotations is usable or counted, by why not, with its first rows named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from framefeed.cli.command import main
from framefeed.errors import BadInput
from framefeed.manifest import Manifest, Refusal, read_manifest
from framefeed.quarantine import Quarantine, QuarantinedSpan, read_quarantine
from tests.manifests import manifest_of
from trainer_client.datasets.annotation import Annotation
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
    assert seen.err.startswith(f"framefeed: 9 of 10 rows of {rows} cannot be used: 2 not readable, 2 not in the ")
    assert seen.err.count("\n") == 1
    for line in (
        "line 3: end is 'nine', wanted seconds",
        "line 10: it has another number of fields than its header",
        "line 4: 'on' [0, 2) s: not in the root; did you mean 'a/one'?",
        "'bad' [0, 1) s: refused when it was indexed: it is empty",
        "'a/one' [3, 2) s: wanted 0 <= start < end",
        "line 6: 'a/one' [9, 12) s: past the end: it has 10 s",
        "'b/two' [1, 3) s: quarantined: b/two from 2.000 to 4.000 s: damaged",
    ):
        assert line in seen.out
    lines = [json.loads(line)["line"] for line in report.read_text().splitlines()]
    assert sorted(lines) == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert max(map(len, seen.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        (
            "labels.csv",
            "video,start,end,label\na/one,0,2,\n",
            "line 2: 'a/one' [0, 2) s: there is no label and no text",
        ),
        ("blank.csv", "video,label\na/one,cut\nb/two,  \n", "line 3: there is no label"),
        ("texts.csv", "video,text\na/one,he cuts\na/one,\n", "line 3: 'a/one': there is no text"),
        (
            "blanks.jsonl",
            '{"video":"a/one","text":["", " "]}\n{"video":"a/one","text":"x"}',
            "line 1: 'a/one': there is",
        ),
        ("list.jsonl", '{"video":"a/one","start":"0","end":null,"label":["x"]}', "line 1: label is list of 1, wanted"),
        ("empty.jsonl", '{"video":"a/one","label":"","text":[]}', "line 1: 'a/one': there is no label and no text"),
    ],
)
def test_rows_that_no_training_takes_are_not_usable(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, first: str
) -> None:
    """Neither are they samples with a label or a text."""
    (root.parent / name).write_text(text)
    assert main(["check", str(root), str(root.parent / name)]) == 1
    seen = capsys.readouterr()
    assert first in seen.out
    assert f"1 of {text.strip().count(chr(10)) + name.endswith('jsonl')} rows of" in seen.err
    spec = DataSpec(kind="table", path=root.parent / name, cache=root.parent / "cache", absent="leave_out")
    if name in ("blank.csv", "list.jsonl"):
        with pytest.raises(BadInput, match=re.escape(name)):
            open_dataset(spec, read_manifest(root))
        return
    dataset = open_dataset(spec, read_manifest(root))
    assert len(dataset) == 1
    sample = dataset[0]
    assert isinstance(sample.target, Annotation)
    assert bool(sample.target.texts) is (name in ("texts.csv", "blanks.jsonl"))
    assert not sample.target.labels


def test_spans_past_the_end_are_used_up_to_there_where_that_is_wanted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = root.parent / "fixed.csv"
    assert main(["check", str(root), str(root.parent / "rows.csv"), "--clip", "--fixed", str(fixed)]) == 1
    assert "2  usable, cut off at the end" in capsys.readouterr().out
    assert main(["check", str(root), str(fixed)]) == 0
    samples = open_dataset(DataSpec(kind="table", path=fixed, cache=root.parent / "cache"), read_manifest(root))
    assert [(samples[at].start_s, samples[at].end_s) for at in range(len(samples))] == [(0, 2), (9, 10), (9, 10)]


def checked(root: Path, name: str, text: str, *more: str) -> tuple[int, Path]:
    """The exit code of `check`, and the file."""
    path = root.parent / name
    path.write_text(text)
    return main(["check", str(root), str(path), *more]), path


@pytest.mark.parametrize(
    ("ends", "usable"),
    [
        ("10 10.01 10.03", "10 10.01 10.03"),  # a frame of 30 a second, and half of 0.01 s
        ("10 10.05 10.1", "10"),
        ("9.5 10.1", "9.5"),  # whole tenths: a frame and 0.05 s
        ("9.5 10.08", "9.5"),
        ("10 11", "10"),  # whole seconds: up to half a second more, and a second is none
    ],
)
def test_an_end_is_past_its_videos_by_a_frame_and_the_rounding_of_the_files_digits_at_most(
    root: Path, capsys: pytest.CaptureFixture[str], ends: str, usable: str
) -> None:
    rows = "".join(f"a/one,1,{end},cut\n" for end in ends.split())
    _, path = checked(root, "ends.csv", f"video,start,end,label\n{rows}")
    seen, past = capsys.readouterr().out, [end for end in ends.split() if end not in usable.split()]
    cut = [end for end in usable.split() if float(end) > 10]
    assert [line.split()[0] for line in seen.splitlines() if line.endswith("past the end")] == [str(len(past))] * bool(
        past
    )
    assert ("usable, cut off at the end" in seen) == bool(cut), "what is cut is counted and named"
    spec = DataSpec(kind="table", path=path, cache=root.parent / "cache", absent="leave_out")
    samples = open_dataset(spec, read_manifest(root))
    assert len(samples) == len(usable.split()), "training goes by the same rule"
    assert max(samples[at].end_s for at in range(len(samples))) <= 10


def test_whole_seconds_are_rounded_to_half_a_second(root: Path) -> None:
    manifest_of({"v": 9.7}).write(root)
    assert checked(root, "a.csv", "video,start,end,label\nv,1,10,x\n")[0] == 0
    assert checked(root, "b.csv", "video,start,end,label\nv,1,10,x\nv,1,2.25,x\n")[0] == 1


def test_what_is_fixed_keeps_all_columns_and_never_takes_the_place_of_the_annotations(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'who,video,start,end,label,score\nme,a/one,0,2.50,cut,"1,5"\nyou,gone,0,2,cut,2\nme,a/one,9,10.03,cut,\n'
    fixed = root.parent / "fixed.csv"
    code, path = checked(root, "mine.csv", text, "--fixed", str(fixed))
    assert code == 1
    assert (
        fixed.read_text() == 'who,video,start,end,label,score\nme,a/one,0,2.50,cut,"1,5"\nme,a/one,9,10.000000,cut,\n'
    )
    assert checked(root, "mine.csv", text, "--fixed", str(fixed))[0] == 2
    assert "is there already; wanted a new file, or --overwrite" in capsys.readouterr().err
    assert checked(root, "mine.csv", text, "--fixed", str(fixed), "--overwrite")[0] == 1
    (root.parent / "link.csv").hardlink_to(path)
    (root.parent / "soft.csv").symlink_to(path)
    for name in ("mine.csv", "link.csv", "soft.csv", "root/../mine.csv"):
        for option in ("--fixed", "--report"):
            assert checked(root, "mine.csv", text, option, f"{root.parent}/{name}", "--overwrite")[0] == 2
            assert "which is read" in capsys.readouterr().err
    assert path.read_text() == text


def test_json_lines_stay_json_lines(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken line is counted as any other, and what a CSV cannot hold is refused before a file is written."""
    good = '{"video": "a/one", "start": 0, "end": 2, "text": ["a", "b"], "by": {"id": 7}}\n'
    fixed = root.parent / "fixed.jsonl"
    text = good + '\n{"video": "a/one", "start"\n[1]\n'
    assert checked(root, "mine.jsonl", text, "--fixed", str(fixed))[0] == 1
    seen = capsys.readouterr().out
    assert "2  not readable" in seen
    assert "line 3: it is" in seen
    assert json.loads(fixed.read_text()) == json.loads(good)
    assert checked(root, "mine.jsonl", text, "--fixed", str(root.parent / "no.csv"))[0] == 2
    assert "a row has 2 texts, of which a CSV holds one; wanted NAME.jsonl" in capsys.readouterr().err


def test_a_folder_is_looked_through_for_each_split(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root.parent / "split"
    folder.mkdir()
    (folder / "notes.csv").touch()
    assert main(["check", str(root), str(folder)]) == 2
    said = capsys.readouterr().err
    assert "none of train.csv, " in said
    assert "test.csv" in said
    assert "(train, val, test were tried), as --kind table has them, which is a guess from the names of its " in said
    assert said.endswith("--kind: ego4d, egomcq, ek100_mir, ek100_cls, kinetics, ssv2, class_folders, table\n")
    (folder / "test.csv").write_text("video,label\na/one,x\n")
    assert main(["check", str(root), str(folder)]) == 0


def test_a_folder_of_any_json_is_not_taken_for_a_kind(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root.parent / "split"
    folder.mkdir()
    (folder / "framefeed.chunks.json").write_text("{}")
    assert main(["check", str(root), str(folder)]) == 2
    said = capsys.readouterr().err
    assert "egomcq.json" not in said
    assert "as --kind kinetics has them, which is a guess" in said
    (folder / "egomcq.json").write_text("{}")
    assert main(["check", str(root), str(folder)]) == 2
    assert "has no question" in capsys.readouterr().err
    assert main(["check", str(root), str(folder), "--kind", "table"]) == 2
    assert "a guess" not in capsys.readouterr().err


def test_a_name_in_other_capitals_is_told_which_was_meant(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(root, "a.csv", "video,start,end,label\na/ONE,1,2,x\n")[0] == 1
    assert "not in the root; did you mean 'a/one'?" in capsys.readouterr().out


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
