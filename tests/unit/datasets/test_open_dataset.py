"""Every published form becomes the same samples: which video, from when to when, with which texts and labels."""

from __future__ import annotations

import json
import math
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from tests.manifests import manifest_of
from trainer_client.datasets.annotated import ABSENT, NO_SPAN, NO_TEXT, PAST_END, AnnotatedDataset
from trainer_client.datasets.annotation import Annotation, labels_of, text_of
from trainer_client.datasets.class_file import CLASSES_NAME, find_class_file, write_class_file
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec, Kind
from trainer_client.samples import Sample

CLASSES = "abseiling\nzumba\n"


def opened(tmp_path: Path, manifest: Manifest, kind: Kind, path: Path, **fields: object) -> AnnotatedDataset:
    return open_dataset(DataSpec(kind=kind, path=path, cache=tmp_path / "cache", **fields), manifest)  # type: ignore[arg-type]


def said(dataset: AnnotatedDataset) -> list[tuple[str, float, float, tuple[str, ...], dict[str, int]]]:
    found = []
    for sample in (dataset[index] for index in range(len(dataset))):
        target = sample.target
        assert isinstance(target, Annotation)
        found.append((sample.video, sample.start_s, sample.end_s, tuple(target.texts), dict(target.labels)))
    return found


def test_narrations_of_all_three_kinds_are_one_data_set(tmp_path: Path) -> None:
    human, narrator = tmp_path / "ego4d_train.pkl", tmp_path / "narrator.pkl"
    human.write_bytes(pickle.dumps([("uid1", 1.5, 2.25, "#C C opens a door"), ("uid2", 0.0, 1.0, ["a", "b"])]))
    scored = [("uid1", np.float32(3.5), np.float64(4.5), np.array(["x", "y", "z"]), [0.5, 1.0, 2.0])]
    narrator.write_bytes(pickle.dumps(scored))
    manifest = manifest_of({"v2/uid1": 10.0, "v2/uid2": 10.0})
    dataset = opened(tmp_path, manifest, "ego4d", human, extra=(narrator,))
    assert said(dataset) == [
        ("v2/uid1", 1.5, 2.25, ("#C C opens a door",), {}),
        ("v2/uid2", 0.0, 1.0, ("a", "b"), {}),
        ("v2/uid1", 3.5, 4.5, ("x", "y", "z"), {}),
    ]
    assert dataset.identity == "v1-test"
    drawn = [text_of(dataset[2].target, seed) for seed in range(60)]
    assert set(drawn) == {"x", "y", "z"}, "each of several texts is drawn"
    assert drawn == [text_of(dataset[2].target, seed) for seed in range(60)], "the same for the same seed"


@pytest.mark.parametrize(
    "lines",
    ["/data/train/b/2.mp4 300 1\n/data/train/a/1.mp4 300 0\n", "b/2.mp4 1\na/1.mp4 0\n", "b/2 90 1\na/1 80 0\n"],
    ids=["avion", "videomae", "avion without an ending"],
)
def test_lists_of_whole_videos(tmp_path: Path, lines: str) -> None:
    (tmp_path / "train.csv").write_text(lines)
    (tmp_path / "classes.txt").write_text(CLASSES)
    manifest = manifest_of({"a/1": 4.5, "b/2": 3.0})
    dataset = opened(tmp_path, manifest, "kinetics", tmp_path, classes=tmp_path / "classes.txt")
    assert said(dataset) == [("b/2", 0.0, 3.0, (), {"label": 1}), ("a/1", 0.0, 4.5, (), {"label": 0})]
    assert dataset.classes == {"label": ("abseiling", "zumba")}


def test_paths_with_spaces_and_a_pre_training_list(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("playing chess/my 1 clip.mp4 0 -1\nplaying chess/2.mp4 0 -1\n")
    dataset = opened(tmp_path, manifest_of({"playing chess/my 1 clip": 2, "2": 3}), "ssv2", tmp_path / "list.csv")
    assert said(dataset) == [("playing chess/my 1 clip", 0.0, 2.0, (), {}), ("2", 0.0, 3.0, (), {})]
    assert dataset.classes == {}


def test_classes_are_numbered_alike_in_all_splits(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("video,label\na,run\nb,swim\nc,walk\n")
    (tmp_path / "val.csv").write_text("video,start,end,label\na,1,2.5,walk\n")
    manifest = manifest_of(dict.fromkeys("abc", 5.0))
    val = opened(tmp_path, manifest, "table", tmp_path, split="val")
    assert val.classes == opened(tmp_path, manifest, "table", tmp_path).classes == {"label": ("run", "swim", "walk")}
    assert said(val) == [("a", 1.0, 2.5, (), {"label": 2})]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("a 0\nb 7\n")
    (tmp_path / "lists" / "val.txt").write_text("c 3\n")
    listed = opened(tmp_path, manifest, "kinetics", tmp_path / "lists", split="val")
    assert len(listed.classes["label"]) == 8


def test_tables_in_json_with_texts(tmp_path: Path) -> None:
    rows = [{"video": "a", "start": 1, "end": 2, "text": "one"}, {"video": "b", "text": ["two", "three"], "label": 4}]
    rows[0]["label"] = 1
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = opened(tmp_path, manifest_of({"a": 5, "b": 6}), "table", tmp_path / "my.jsonl")
    assert said(dataset) == [
        ("a", 1.0, 2.0, ("one",), {"label": 1}),
        ("b", 0.0, 6.0, ("two", "three"), {"label": 4}),
    ]


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    names = ["k/train/run/1", "k/train/walk/2", "k/val/walk/deep/3", "other/4"]
    manifest = manifest_of(dict.fromkeys(names, 2.0))
    train = opened(tmp_path, manifest, "class_folders", Path("k"))
    val = opened(tmp_path, manifest, "class_folders", Path("k"), split="val")
    assert said(train) == [
        ("k/train/run/1", 0.0, 2.0, (), {"label": 0}),
        ("k/train/walk/2", 0.0, 2.0, (), {"label": 1}),
    ]
    assert said(val) == [("k/val/walk/deep/3", 0.0, 2.0, (), {"label": 1})]


def test_questions_with_choices(tmp_path: Path) -> None:
    def choices(*videos: str) -> dict[str, dict[str, object]]:
        clips = [
            {"video_uid": v, "clip_start": at, "clip_end": at + 1.0, "clip_text": "no"} for at, v in enumerate(videos)
        ]
        return {str(at): clip for at, clip in enumerate(clips)}

    whole = {
        "0": {"answer": 1, "query": {"clip_text": "cuts"}, "choices": choices("u", "v"), "types": 1},
        "1": {"answer": 0, "query": {"clip_text": "looks"}, "choices": choices("u", "u"), "types": 2},
    }
    (tmp_path / "egomcq.json").write_text(json.dumps(whole))
    dataset = opened(tmp_path, manifest_of({"u": 9, "v": 9}), "egomcq", tmp_path, split="val")
    labels = [tuple(labels_of(dataset[at].target).values()) for at in range(4)]
    assert labels == [(0, 0, 1, 0), (0, 1, 1, 0), (1, 0, 0, 1), (1, 1, 0, 1)]
    assert [text_of(dataset[at].target) for at in range(4)] == ["cuts", "cuts", "looks", "looks"]


def test_every_row_is_used_or_counted(tmp_path: Path) -> None:
    rows = [
        ("here", 1.0, 2.0, "ok"),
        ("gone", 1.0, 2.0, "no video"),
        ("here", 9.5, 10.03, "ends within a frame behind the end"),
        ("here", 9.5, 10.09, "ends two frames behind the end"),
        ("here", 3.0, 3.0, "no length"),
        ("here", 10.0, 12.0, "begins at the end"),
        ("here", 1.0, 11.5, "ends too late"),
        ("here", 1.0, 2.0, ""),
        ("here", math.nan, 2.0, "no start"),
        ("here", 4.0, 5.0, "last"),
    ]
    (tmp_path / "ego4d_train.pkl").write_bytes(pickle.dumps(rows))
    manifest = manifest_of({"here": 10.0})
    dataset = opened(tmp_path, manifest, "ego4d", tmp_path, absent="leave_out")
    assert said(dataset) == [
        ("here", 1.0, 2.0, ("ok",), {}),
        ("here", 9.5, 10.0, ("ends within a frame behind the end",), {}),
        ("here", 4.0, 5.0, ("last",), {}),
    ]
    assert dataset.left_out == {ABSENT: 1, NO_SPAN: 2, PAST_END: 3, NO_TEXT: 1}
    assert dataset.annotated == len(dataset) + sum(dataset.left_out.values())
    assert [dataset.row(at) for at in range(3)] == dataset.rows.tolist() == [0, 2, 9]
    with pytest.raises(
        BadInput, match=r"row 1 of ego4d train of .*'gone' \[1, 2\) s, not in the manifest; 7 of 10 rows"
    ):
        opened(tmp_path, manifest, "ego4d", tmp_path)


def test_annotations_are_converted_once_and_again_when_they_are_written_again(tmp_path: Path) -> None:
    table, manifest = tmp_path / "t.csv", manifest_of({"a": 5})
    table.write_text("video,text\na,one\n")
    first = opened(tmp_path, manifest, "table", table)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = opened(tmp_path, manifest, "table", table)
    assert said(again) == said(first)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    table.write_text("video,text\na,another\n")
    os.utime(table, ns=(1, 1))
    other = opened(tmp_path, manifest, "table", table)
    assert said(other)[0][3] == ("another",)
    assert other.fingerprint != first.fingerprint


def test_several_that_open_at_once_convert_once(tmp_path: Path) -> None:
    table, manifest = tmp_path / "t.csv", manifest_of({"a": 5})
    table.write_text("video,text\n" + "a,one\n" * 20_000)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(opened(tmp_path, manifest, "table", table)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [20_000] * 4
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_what_a_killed_conversion_left_goes(tmp_path: Path) -> None:
    table, manifest = tmp_path / "t.csv", manifest_of({"a": 5})
    table.write_text("video,text\na,one\n")
    opened(tmp_path, manifest, "table", table)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    left = folder.rename(folder.with_name(f"{folder.name}.{'0' * 16}.part"))
    assert said(opened(tmp_path, manifest, "table", table))[0][3] == ("one",)
    assert not left.exists()


@pytest.mark.parametrize("name", ["video.i32", "start_s.f64", "text.i64", "text.bin", "videos.json", "columns.json"])
def test_columns_that_are_cut_off_are_refused_by_name(tmp_path: Path, name: str) -> None:
    table, manifest = tmp_path / "t.csv", manifest_of({"a": 5})
    table.write_text("video,text\na,one\na,two\n")
    opened(tmp_path, manifest, "table", table)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    os.truncate(folder / name, (folder / name).stat().st_size - 1)
    with pytest.raises(BadInput, match=name.replace(".", r"\.")):
        opened(tmp_path, manifest, "table", table)


def test_a_sample_past_the_end_is_no_sample(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("video,text\na,one\n")
    dataset = opened(tmp_path, manifest_of({"a": 5}), "table", tmp_path / "t.csv")
    assert [sample for sample in dataset] == [dataset[0]]  # noqa: C416  # by __getitem__ until IndexError
    assert isinstance(dataset[0], Sample)


def test_classes_have_the_numbers_that_a_model_was_trained_on(tmp_path: Path) -> None:
    """An evaluation's file has numbers of its own; a model's decide, and a class that it never saw is refused."""
    manifest = manifest_of({"a": 10.0, "b": 10.0})
    rows = tmp_path / "val.csv"
    rows.write_text("video,start,end,label\na,0,1,dog\nb,0,1,zebra\n")
    dataset = opened(tmp_path, manifest, "table", rows)
    assert dataset.classes["label"] == ("dog", "zebra")
    with pytest.raises(BadInput, match="the model was trained on no label 'zebra'; wanted 'cat', 'dog'"):
        dataset.number_as({"label": ("cat", "dog")})
    dataset.number_as({"label": ("cat", "dog", "owl", "zebra"), "verb": ("take",)})
    assert dataset.label_array("label").tolist() == [1, 3]
    assert [labels_of(dataset[index].target)["label"] for index in range(2)] == [1, 3]
    assert dataset.classes == {"label": ("cat", "dog", "owl", "zebra")}


def test_names_of_classes_lie_beside_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "step_1").mkdir(parents=True)
    assert find_class_file(run) is None
    write_class_file(run, {"label": ("cat", "dog")})
    assert find_class_file(run) == find_class_file(run / "step_1") == {"label": ("cat", "dog")}
    (run / CLASSES_NAME).write_text("[1]")
    with pytest.raises(BadInput, match=r"classes .* cannot be read"):
        find_class_file(run)
