"""A walk accounts for everything below a folder, follows what it may, and nothing ends it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from decode_server.sources.walk import HIDDEN, NO_SUFFIX, WalkRules, walk

NOBODY = 65534


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_are_found_in_order_and_the_others_counted_by_suffix(tmp_path: Path) -> None:
    _touch(
        tmp_path, "b.mp4", "a/x.MKV", "a/y.ogv", "z.OGV", "README", ".DS_Store", "a/.thumbs/t.mp4", "framefeed.packets"
    )
    tree = walk(tmp_path, WalkRules())
    assert tree.files == ["a/x.MKV", "b.mp4"]
    assert tree.ignored == {".ogv": 2, NO_SUFFIX: 1, HIDDEN: 2}
    assert tree.refused == {}
    assert walk(tmp_path, WalkRules(all_files=True)).files == ["README", "a/x.MKV", "a/y.ogv", "b.mp4", "z.OGV"]


def test_links_are_followed_inside_the_tree_and_out_of_it_on_demand_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    _touch(tmp_path, "root/blobs/1234", "root/real/a.mp4", "outside/o.mp4", "outside/deep/p.mp4")
    (root / "snapshots").mkdir()
    links = {
        "snapshots/x.mp4": "../blobs/1234",
        "again": "real",
        "loop": ".",
        "out.mp4": str(tmp_path / "outside" / "o.mp4"),
        "outer": str(tmp_path / "outside" / "deep"),
        "gone.mp4": "nowhere",
        "round.mp4": "round.mp4",
        "gone.txt": "nowhere",
    }
    for link, target in links.items():
        (root / link).symlink_to(target)
    tree = walk(root, WalkRules())
    assert tree.files == ["real/a.mp4", "snapshots/x.mp4"]
    assert set(tree.refused) == {"out.mp4", "outer", "gone.mp4", "round.mp4"}
    assert all("--follow-links" in tree.refused[link] for link in ("out.mp4", "outer"))
    assert tree.outside == set()
    wider = walk(root, WalkRules(follow_links=True))
    assert wider.files == ["out.mp4", "outer/p.mp4", "real/a.mp4", "snapshots/x.mp4"]
    assert wider.outside == {str(tmp_path / "outside"), str(tmp_path / "outside" / "deep")}


def test_links_that_fan_out_are_walked_once(tmp_path: Path) -> None:
    for level in range(30):
        (tmp_path / f"level{level}").mkdir()
        for link in ("a", "b"):
            (tmp_path / f"level{level}" / link).symlink_to(f"../level{level + 1}")
    _touch(tmp_path, "level30/x.mp4")
    assert walk(tmp_path, WalkRules()).files == ["level30/x.mp4"]


def test_a_path_longer_than_the_system_takes_is_one_line(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4")
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
    finally:
        os.chdir(here)
    tree = walk(tmp_path, WalkRules())
    assert tree.files == ["a.mp4"]
    ((_, why),) = tree.refused.items()
    assert why == "this folder cannot be listed (File name too long)"


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_a_folder_that_may_not_be_read_is_one_line() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        _touch(folder, "a.mp4", "secret/b.mp4")
        (folder / "secret").chmod(0o700)
        with as_nobody():
            tree = walk(folder, WalkRules())
    assert tree.files == ["a.mp4"]
    assert tree.refused == {"secret": "this folder cannot be listed (Permission denied)"}
