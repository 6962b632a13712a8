"""Annotations that are not what they are said to be: one line each, that says what, where, seen and wanted."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from tests.manifests import manifest_of
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec

HEADER = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,narration,verb_class,noun_class,"
    "all_noun_classes"
)
ROW = "P01_1_0,P01,P01_1,00:00:00.00,00:00:01.89,take plate,0,2,[2]"


def epic(*lines: str) -> dict[str, str]:
    return {"EPIC_100_validation.csv": "\n".join(lines) + "\n"}


def question(**changes: object) -> dict[str, str]:
    choice = {"video_uid": "a", "clip_start": 0, "clip_end": 1, "clip_text": "x"}
    whole = {"answer": 0, "query": {"clip_text": "x"}, "choices": {"0": choice}} | changes
    return {"egomcq.json": json.dumps({"0": whole})}


CASES: dict[str, tuple[str, dict[str, str], str]] = {
    "no file": ("kinetics", {}, r"kinetics lists .* has none of val.csv, .*validation.csv"),
    "empty list": ("kinetics", {"val.csv": "\n"}, "list .* has no line, wanted at least one video: an empty split"),
    "table as a list": (
        "kinetics",
        {"val.csv": "video,label\na,1\n"},
        "line 1 is 'video,label', wanted PATH LABEL.*kind is table",
    ),
    "no label in a line": ("kinetics", {"val.csv": "a.mp4 1\na.mp4\n"}, "line 2 is 'a.mp4', wanted PATH LABEL"),
    "other fields in a line": ("ssv2", {"val.csv": "a.mp4 30 1\na.mp4 x 1\n"}, "line 2 is 'a.mp4 x 1', wanted"),
    "unknown class": (
        "kinetics",
        {"val.csv": "a.mp4 0\na.mp4 2\n", "classes.txt": "x\ny\n"},
        "line 2: class 2 is unknown, wanted 0 to 1",
    ),
    "unknown class of a table": (
        "table",
        {"val.csv": "video,label\na,x\na,jump\n", "classes.txt": "x\ny\n"},
        "line 3: label 'jump' is unknown; wanted one of the 2 classes",
    ),
    "class twice": ("table", {"val.csv": "video,label\na,x\n", "classes.txt": "x\nx\n"}, "classes .* name 'x' twice"),
    "label of another data set": (
        "table",
        {"val.csv": "video,label\nb1,x\nb2,x\n"},
        r"no row of table val .* can be used \(2 not in the manifest\): are they of another data set\? line 2 .*'b1'",
    ),
    "wrong header": ("table", {"val.csv": "path,label\na,x\n"}, "has the header 'path, label', wanted video"),
    "no header": ("table", {"val.csv": ""}, "has the header 'nothing', wanted video"),
    "only a header": ("table", {"val.csv": "video,label\n"}, "table val of .* has no row, .*an empty split"),
    "fields missing": ("table", {"val.csv": "video,start,label\na,1\n"}, "line 2: it has another number of fields"),
    "no number": ("table", {"val.csv": "video,start,label\na,soon,x\n"}, "line 2: start is 'soon', wanted seconds"),
    "no video": ("table", {"val.csv": "video,label\n,x\n"}, "line 2: video is '', wanted a name"),
    "past the end": (
        "table",
        {"val.csv": "video,start,end,text\na,1,2,x\na,9,12,y\n"},
        r"line 3 of .* past the end \(it has 10 s\); 1 of 2 rows cannot be used .*, or --data.absent leave_out",
    ),
    "no JSON": ("table", {"val.jsonl": "{'video': 'a'}\n"}, "line 1: it is .*, wanted an object in JSON"),
    "a name twice in JSON": ("table", {"val.jsonl": '{"video":"a","label":1,"label":2}\n'}, "it has 'label' twice"),
    "a column twice": (
        "table",
        {"val.csv": "video,label,label\na,1,0\n"},
        "has the column 'label' twice in its header",
    ),
    "a column of EPIC's twice": ("ek100_cls", epic(f"{HEADER},narration", ROW), "has the column 'narration' twice"),
    "semicolons": (
        "table",
        {"val.csv": "video;start;end;label\na;0;1;0\n"},
        "its fields are parted by semicolons, wanted commas",
    ),
    "tabs": ("table", {"val.csv": "video\tlabel\na\t0\n"}, "parted by tabs, wanted commas"),
    "commas in a .tsv": (
        "table",
        {"val.tsv": "video,label\na,0\n"},
        "by commas, wanted tabs, as its name ends in .tsv",
    ),
    "spaces in a header": ("table", {"val.csv": "video, label\na, 0\n"}, "spaces around them, wanted none"),
    "capitals in a header": ("table", {"val.csv": "Video,Label\na,0\n"}, "capitals, wanted lower case"),
    "Python's digits": ("table", {"val.csv": "video,end,label\na,1_0,0\n"}, "line 2: end is '1_0', wanted seconds"),
    "digits of another script": (
        "table",
        {"val.csv": "video,end,label\na,\u0662,0\n"},
        "line 2: end is .*, wanted seconds",
    ),
    "no finite number": ("table", {"val.csv": "video,end,label\na,inf,0\n"}, "line 2: end is 'inf', wanted seconds"),
    "the line at which a record begins": (
        "table",
        {"val.csv": 'video,end,text\n\na,1,"x\ny"\na,no,"x\ny"\n'},
        "line 5: end is 'no', wanted seconds",
    ),
    "half a character": ("table", {"val.jsonl": '{"video":"a","text":"\\ud800"}\n'}, "line 1: .* half a character"),
    "no UTF-8": ("table", {"val.csv": "video,label\na,\udcff\n"}, "no UTF-8 text: byte 14 is 0xff"),
    "header of the sentences": (
        "ek100_cls",
        epic("narration_id,narration", "x,y"),
        "has no column participant_id, video_id",
    ),
    "unknown verb": (
        "ek100_cls",
        epic(HEADER, ROW.replace(",0,2,", ",97,2,")),
        "line 2: verb class 97 is unknown, wanted 0 to 96",
    ),
    "unknown noun": (
        "ek100_cls",
        epic(HEADER, ROW.replace("[2]", '"[2, 300]"')),
        "noun class 300 is unknown, wanted 0 to 299",
    ),
    "no list": (
        "ek100_cls",
        epic(HEADER, ROW.replace("[2]", "2")),
        "all_noun_classes is '2', wanted a list of numbers",
    ),
    "no time": ("ek100_cls", epic(HEADER, ROW.replace("00:00:01.89", "1.89")), "time stamp is '1.89', wanted HH:MM:SS"),
    "a negative time": (
        "ek100_cls",
        epic(HEADER, ROW.replace("00:00:01", "-00:00:01")),
        "time stamp is '-00:00:01.89'",
    ),
    "a minute of more seconds": (
        "ek100_cls",
        epic(HEADER, ROW.replace("0:01.89", "0:61.89")),
        "time stamp is '00:00:61",
    ),
    "hours without end": (
        "ek100_cls",
        epic(HEADER, ROW.replace("00:00:01", f"{'9' * 400}:00:01")),
        "time stamp is '9+…",
    ),
    "no noun": (
        "ek100_cls",
        epic(HEADER, ROW.replace("[2]", "[]")),
        r"line 2: all_noun_classes is '\[\]', wanted a list of numbers, one or more",
    ),
    "lists in lists": (
        "ek100_cls",
        epic(HEADER, ROW.replace("[2]", "[" * 3000)),
        "line 2: all_noun_classes is '.*', wanted a list of numbers",
    ),
    "a verb of thousands of digits": (
        "ek100_cls",
        epic(HEADER, ROW.replace(",0,2,", f",{'9' * 5000},2,")),
        "line 2: '9+…9+' is no whole number of at most 18 digits",
    ),
    "class file of another set": (
        "ek100_cls",
        {**epic(HEADER, ROW), "EPIC_100_verb_classes.csv": "id,key\n0,take\n"},
        "EPIC_100_verb_classes.csv names 1 classes, wanted 0 to 96",
    ),
    "no questions": ("egomcq", {"egomcq.json": "{}"}, "has no question"),
    "questions in another form": ("egomcq", {"egomcq.json": '{"0": {"answer": 1}}'}, "question 0 is none .KeyError"),
    "answer that is no choice": ("egomcq", question(answer=1), "question 0 is none .*answer is 1, wanted 0 to 0"),
    "a class number that is an id": (
        "table",
        {"val.csv": "video,label\na,0\na,999999999999\n"},
        "table .*: class '999999999999' is unknown, wanted 0 to 1048575, or names of classes",
    ),
    "a class number of thousands of digits": (
        "table",
        {"val.csv": f"video,label\na,0\na,{'9' * 5000}\n"},
        "class '9+…9+' is unknown",
    ),
    "an id in a list": (
        "kinetics",
        {"val.csv": "a.mp4 0\na.mp4 2147483648\n"},
        "line 2: class '2147483648' is unknown",
    ),
    "thousands of digits in a list": ("ssv2", {"val.csv": f"a.mp4 30 {'9' * 5000}\n"}, "line 1: class '9+…9+' is"),
    "an id in the other split's list": (
        "kinetics",
        {"val.csv": "a.mp4 0\n", "train.csv": f"a.mp4 {10**12}\n"},
        "train.csv, line 1: class '1000000000000' is unknown",
    ),
    "a label that is a list": (
        "table",
        {"val.jsonl": '{"video":"a","label":[1,2]}\n'},
        "line 1: label is list of 2, wanted a name or a number",
    ),
    "a label that is no number": (
        "table",
        {"val.jsonl": '{"video":"a","label":NaN}\n'},
        "line 1: label is nan, wanted a name or a number",
    ),
    "half a character in a label": (
        "table",
        {"val.jsonl": '{"video":"a","label":"\\ud800"}\n'},
        "line 1: label is .*half a character",
    ),
    "times by other names": (
        "table",
        {"val.csv": "video,start_s,end_s,label\na,0,1,x\n"},
        "has the column 'start_s' and no start; wanted it to be called start, in seconds",
    ),
    "an end by another name": (
        "table",
        {"val.jsonl": '{"video":"a","start":0,"Stop time":1,"label":"x"}\n'},
        "has the column 'Stop time' and no end",
    ),
    "an endless choice": (
        "egomcq",
        question(choices=[{"video_uid": "a", "clip_start": 0, "clip_end": float("inf")}]),
        "question 0 is none .*clip_end is inf, wanted seconds",
    ),
    "a time that no float holds": (
        "egomcq",
        question(choices=[{"video_uid": "a", "clip_start": 0, "clip_end": 10**400}]),
        "question 0 is none .*clip_end is a number of 1329 bits, wanted seconds",
    ),
    "no question's text": ("egomcq", question(query={"clip_text": None}), "clip_text is None, wanted text"),
    "half a character in a uid": (
        "egomcq",
        question(choices=[{"video_uid": "\ud800", "clip_start": 0, "clip_end": 1}]),
        "video_uid is .*half a character",
    ),
    "names that are one video": (
        "table",
        {"val.csv": "video,label\nx/a,1\ny/a,1\n"},
        "names 'x/a' and 'y/a', and of both only 'a' is in the manifest",
    ),
    "folders without classes": ("class_folders", {}, "'a' lies in no class"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_says_what_is_wrong(tmp_path: Path, case: str) -> None:
    kind, files, line = CASES[case]
    folder = tmp_path / "annotations"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, errors="surrogateescape")
    classes = folder / "classes.txt"
    spec = DataSpec(
        kind=kind,  # type: ignore[arg-type]
        path=Path() if kind == "class_folders" else folder,
        split="val",
        classes=classes if classes.exists() else None,
        cache=tmp_path / "cache",
    )
    with pytest.raises(BadInput, match=line) as caught:
        open_dataset(spec, manifest_of({"a": 10.0, "P01/P01_1": 10.0}))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("*.part")), "nothing half is left"


class _Runs:
    """Unpickled by pickle itself, it removes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return shutil.rmtree, (str(self._path),)


PICKLES: dict[str, tuple[object, str]] = {
    "of one item": ([("uid", 1.0, 2.0)], r"item 0 is .*, wanted \(uid, start, end, narration\)"),
    "of numbers": ([("uid", 1.0, 2.0, 3.0)], "item 0 is"),
    "of a dict": ({"uid": 1}, "wanted a list of"),
    "empty": ([], "wanted a list of"),
    "of a time that no float holds": ([("a", 0, 10**400, "x")], "item 0: end is a number of 1329 bits, wanted seconds"),
    "of an end that never is": ([("a", 0.0, float("inf"), "x")], "item 0: end is inf, wanted seconds"),
    "of half a character in a uid": ([("a", 0.0, 1.0, "x"), ("\ud800", 0.0, 1.0, "x")], "item 1: uid is .*half a char"),
    "of half a character in a text": ([("a", 0.0, 1.0, ["x", "\ud800"])], "item 0: narration is .*half a character"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_of_something_else(tmp_path: Path, case: str) -> None:
    value, line = PICKLES[case]
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(BadInput, match=line):
        open_dataset(DataSpec(kind="ego4d", path=path, cache=tmp_path / "cache"), manifest_of({"a": 10.0}))


def test_a_pickle_that_would_run_code_runs_none(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "x.pkl"
    victim.mkdir()
    path.write_bytes(pickle.dumps([("uid", 0.0, 1.0, _Runs(victim))]))
    with pytest.raises(BadInput, match=r"wants shutil\.rmtree, and only lists, .*: a pickle may run any code"):
        open_dataset(DataSpec(kind="ego4d", path=path, cache=tmp_path / "cache"), manifest_of({"a": 10.0}))
    assert victim.exists()
