"""Which files `framefeed chunk` takes, and what it calls them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from decode_server.chunking.find_sources import find_videos
from decode_server.chunking.transcode import RECORD_NAME
from decode_server.sources.walk import WalkRules
from framefeed.errors import BadInput


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _mark_chunked(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_NAME).write_text(json.dumps({"framefeed_chunks": 3}))


def test_folders_are_searched_recursively_and_names_are_relative(tmp_path: Path) -> None:
    _touch(tmp_path / "in", "P01/P01_01.MP4", "P02/a.b.mkv", "notes.txt", ".hidden/x.mp4", "._x.mp4", "y.ogv")
    found = find_videos([tmp_path / "in"], tmp_path / "out")
    assert found.videos == {
        "P01/P01_01": tmp_path / "in" / "P01" / "P01_01.MP4",
        "P02/a.b": tmp_path / "in" / "P02" / "a.b.mkv",
    }
    assert found.ignored == {".txt": 1, ".ogv": 1, "hidden": 2}
    everything = find_videos([tmp_path / "in"], tmp_path / "out", WalkRules(all_files=True))
    assert list(everything.videos) == ["P01/P01_01", "P02/a.b", "notes", "y"]


def test_a_named_file_is_taken_whatever_its_suffix_and_once(tmp_path: Path) -> None:
    _touch(tmp_path, "in/x.video", "in/y.mp4")
    found = find_videos([tmp_path / "in" / "x.video", tmp_path / "in" / "y.mp4", tmp_path / "in"], tmp_path / "out")
    assert list(found.videos) == ["x", "y"]
    assert found.refused == {}


def test_the_root_inside_the_source_is_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, "x.mp4", "out/x.mp4/0.mp4")
    assert list(find_videos([tmp_path], tmp_path / "out").videos) == ["x"]


def test_files_of_one_stem_are_two_videos(tmp_path: Path) -> None:
    _touch(tmp_path, "in/a.mp4", "in/a.mkv", "in/b.mp4")
    found = find_videos([tmp_path / "in"], tmp_path / "out")
    assert list(found.videos) == ["a.mkv", "a.mp4", "b"]
    assert found.refused == {}


def test_a_name_stays_whatever_comes_to_lie_beside_the_file(tmp_path: Path) -> None:
    _touch(tmp_path, "in/a.mp4")
    names = []
    for beside in ((), ("in/a.mkv",)):
        _touch(tmp_path, *beside)
        found = find_videos([tmp_path / "in"], tmp_path / "out")
        names.append(sorted(found.videos))
        for video, source in found.videos.items():
            folder = tmp_path / "out" / f"{video}.mp4"
            _mark_chunked(folder)
            (folder / RECORD_NAME).write_text(json.dumps(_record(source)))
    (tmp_path / "in" / "a.mp4").unlink()
    names.append(sorted(find_videos([tmp_path / "in"], tmp_path / "out").videos))
    assert names == [["a"], ["a", "a.mkv"], ["a.mkv"]]


def _record(source: Path) -> dict[str, object]:
    whole = dict.fromkeys(("source_bytes", "source_mtime_ns", "width_px", "height_px", "frames", "repeated_frames"), 1)
    more = dict.fromkeys(("duration_s", "source_start_s", "skipped_packets", "silenced_packets"), 0)
    lists: dict[str, object] = {"chunk_start_s": [0], "chunk_bytes": [1], "damages": [], "notes": []}
    return {"framefeed_chunks": 4, "source": str(source), "settings": {}, "crf": None, **whole, **more, **lists}


@pytest.mark.parametrize(
    ("names", "sources", "refused", "why"),
    [
        (["in/a.mp4", "more/a.mp4"], ["in", "more"], "more/a.mp4", "would be called 'a' as .*in/a.mp4 is"),
        (["in/a.mkv", "in/a.mp4/b.mkv"], ["in"], "in/a.mp4/b.mkv", "would lie in the chunk folder of .*a.mkv"),
    ],
)
def test_what_has_no_place_of_its_own_is_named_and_the_rest_is_taken(
    tmp_path: Path, names: list[str], sources: list[str], refused: str, why: str
) -> None:
    _touch(tmp_path, *names)
    found = find_videos([tmp_path / source for source in sources], tmp_path / "out")
    assert list(found.videos.values()) == [tmp_path / names[0]]
    ((path, said),) = found.refused.items()
    assert path == str(tmp_path / refused)
    assert re.search(why, said)


def test_chunks_are_no_source(tmp_path: Path) -> None:
    _touch(tmp_path, "in/x.mp4", "in/chunks/x.mp4/0.mp4")
    _mark_chunked(tmp_path / "in" / "chunks" / "x.mp4")
    found = find_videos([tmp_path / "in"], tmp_path / "out")
    assert list(found.videos) == ["x"]
    ((path, why),) = found.refused.items()
    assert path == str(tmp_path / "in" / "chunks" / "x.mp4")
    assert "holds chunks that 'framefeed chunk' made" in why
    for tree in ("in/chunks", "in/chunks/x.mp4"):
        with pytest.raises(BadInput, match="holds chunks that 'framefeed chunk' made"):
            find_videos([tmp_path / tree], tmp_path / "out")


def test_names_of_any_bytes_and_length_have_a_folder(tmp_path: Path) -> None:
    long = "n" * 252 + ".ts"
    _touch(tmp_path / "in", os.fsdecode(b"caf\xe9.mp4"), long)
    found = find_videos([tmp_path / "in"], tmp_path / "out")
    odd, shortened = found.videos
    assert odd == "caf%E9"
    assert shortened.startswith("n" * 240)
    for video in found.videos:
        (tmp_path / f"{video}.mp4").mkdir()


@pytest.mark.parametrize(
    ("names", "sources", "complaint"),
    [
        (["in/a.txt"], ["in"], r"in holds no video file"),
        ([], ["nowhere"], r"nowhere does not exist"),
        ([], [], r"no source given"),
        (["out/a.mp4"], ["out"], r"same folder"),
    ],
)
def test_bad_sources_are_named(tmp_path: Path, names: list[str], sources: list[str], complaint: str) -> None:
    _touch(tmp_path, *names)
    with pytest.raises(BadInput, match=complaint):
        find_videos([tmp_path / source for source in sources], tmp_path / "out")
