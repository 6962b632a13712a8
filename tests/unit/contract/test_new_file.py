"""Files that take their place whole: no link is followed, nothing is left of those that did not."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from framefeed import new_file
from framefeed.errors import BadInput
from framefeed.new_file import NewFile, check_place, drop_leftovers, write_whole


@pytest.fixture(params=["unnamed", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of a file system: with files that have no name, and without, as NFS."""
    if request.param == "named":
        real = os.open

        def without(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(95, "Operation not supported")
            return real(path, flags, mode, dir_fd=dir_fd)

        monkeypatch.setattr(new_file.os, "open", without)
    return str(request.param)


def test_it_is_whole_or_not_there(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.json"
    with NewFile(path) as new:
        new.file.write(b"half")
        assert not path.exists()
        assert [name for name in os.listdir(tmp_path) if way == "unnamed" or not name.endswith(".part")] == []
    assert os.listdir(tmp_path) == []
    write_whole(path, b"whole")
    write_whole(path, b"again", sync=False)
    assert (os.listdir(tmp_path), path.read_bytes()) == (["a.json"], b"again")


def test_an_error_leaves_what_was_there(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a"
    write_whole(path, b"before")

    def fail() -> None:
        with NewFile(path) as new:
            new.file.write(b"after")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (os.listdir(tmp_path), path.read_bytes()) == (["a"], b"before")


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path, way: str) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    for name in ("a", "a.part", ".a.part"):
        (tmp_path / name).symlink_to(target)
    write_whole(tmp_path / "a", b"new")
    assert target.read_bytes() == b"mine"
    assert stat.S_ISREG((tmp_path / "a").lstat().st_mode)
    os.mkfifo(tmp_path / "pipe")
    write_whole(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").read_bytes() == b"new"


def test_its_name_meanwhile_is_another_each_time(tmp_path: Path) -> None:
    names = {NewFile(tmp_path / "a")._guess() for _ in range(8)}
    assert len(names) == 8
    assert all(len(name) == len("a.") + 16 + len(".part") for name in names)


def test_it_has_the_mode_that_the_user_s_mask_leaves(tmp_path: Path, way: str) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_is_not_there_is_an_oserror_and_no_descriptor_is_kept(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        NewFile(tmp_path / "nowhere" / "a")
    with NewFile(tmp_path / "a") as new:
        new.take_place("b")
        new.close()
    assert os.listdir(tmp_path) == ["b"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_killed_writers_left_goes_when_it_is_old(tmp_path: Path) -> None:
    old, fresh = tmp_path / f"a.{'0' * 16}.part", tmp_path / f"a.{'1' * 16}.part"
    theirs, link = tmp_path / "a.part", tmp_path / f"b.{'2' * 16}.part"
    for path in (old, fresh, theirs):
        path.write_bytes(b"")
    link.symlink_to(theirs)
    for path in (old, theirs):
        os.utime(path, (0, 0))
    drop_leftovers(tmp_path)
    drop_leftovers(tmp_path / "nowhere")
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in (fresh, theirs, link))


def test_a_place_that_cannot_be_written_is_one_line_before_the_work(tmp_path: Path) -> None:
    check_place(None, option="--report")
    check_place(tmp_path / "new.json", option="--report")
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "pipe", "it is a pipe"),
        (tmp_path / "absent/r.json", f"{tmp_path / 'absent'} is no folder"),
    ):
        with pytest.raises(BadInput, match=re.escape(f"--report {path} cannot be written: {why}")):
            check_place(path, option="--report")
