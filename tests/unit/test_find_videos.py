"""Which files `framefeed chunk` takes, and what it calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from decode_server.chunking.chunk import find_videos
from framefeed.errors import BadInput


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_recursively_and_names_are_relative(tmp_path: Path) -> None:
    _touch(tmp_path / "in", "P01/P01_01.MP4", "P02/a.b.mkv", "notes.txt", ".hidden/x.mp4", "._x.mp4")
    assert find_videos([tmp_path / "in"], tmp_path / "out") == {
        "P01/P01_01": tmp_path / "in" / "P01" / "P01_01.MP4",
        "P02/a.b": tmp_path / "in" / "P02" / "a.b.mkv",
    }


def test_a_named_file_is_taken_whatever_its_suffix_and_once(tmp_path: Path) -> None:
    _touch(tmp_path, "in/x.video", "in/y.mp4")
    found = find_videos([tmp_path / "in" / "x.video", tmp_path / "in" / "y.mp4", tmp_path / "in"], tmp_path / "out")
    assert list(found) == ["x", "y"]


def test_the_root_inside_the_source_is_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, "x.mp4", "out/x.mp4/0.mp4")
    assert list(find_videos([tmp_path], tmp_path / "out")) == ["x"]


@pytest.mark.parametrize(
    ("names", "sources", "complaint"),
    [
        (["in/a.mp4", "in/a.mkv"], ["in"], r"a\.mkv and .*a\.mp4 would both be video 'a'"),
        (["in/a.mp4", "more/a.mp4"], ["in", "more"], r"would both be video 'a'"),
        (["in/a.mkv", "in/a.mp4/b.mkv"], ["in"], r"b\.mkv would lie in the chunk folder of .*a\.mkv"),
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
