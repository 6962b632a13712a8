"""Files that are read again: when they are looked at, what a broken one changes, and what is said."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed.reread import LOOK_S, Reread
from tests.integration.serving import wait_until


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        raise BadInput(f"--number: {path} holds no number") from None


def test_a_change_is_seen_after_a_second_and_not_before(tmp_path: Path) -> None:
    path, clock = tmp_path / "number", Clock()
    path.write_text("1")
    reread = Reread(lambda: number(path), [path], clock=clock)
    path.write_text("2")
    clock.now_s = LOOK_S * 0.99
    assert reread() == 1
    clock.now_s = LOOK_S
    assert reread() == 2


def test_what_did_not_change_is_the_same_object(tmp_path: Path) -> None:
    path, clock = tmp_path / "number", Clock()
    path.write_text("1")
    reread = Reread(lambda: [number(path)], [path], clock=clock)
    before = reread()
    clock.now_s = 10.0
    assert reread() is before


@pytest.mark.parametrize("broken", ["nonsense", "", None])
def test_a_broken_file_changes_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    path, clock = tmp_path / "number", Clock()
    path.write_text("1")
    reread = Reread(lambda: number(path), [path], clock=clock)
    path.unlink() if broken is None else path.write_text(broken)
    for clock.now_s in (2.0, 4.0, 6.0):
        assert reread() == 1
    assert caplog.messages == [f"--number: {path} holds no number; what was read before stays in use"]
    path.write_text("3")
    clock.now_s = 8.0
    assert reread() == 3


def test_a_file_that_is_replaced_by_a_link_of_the_same_size_is_seen(tmp_path: Path) -> None:
    """As where Kubernetes mounts secrets."""
    clock, link = Clock(), tmp_path / "number"
    for value in "12":
        (tmp_path / value).write_text(value)
        os.utime(tmp_path / value, ns=(1, 1))
    link.symlink_to(tmp_path / "1")
    reread = Reread(lambda: number(link), [link], clock=clock)
    (tmp_path / "new").symlink_to(tmp_path / "2")
    (tmp_path / "new").rename(link)
    clock.now_s = LOOK_S
    assert reread() == 2


def test_what_cannot_be_read_at_first_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no number"):
        Reread(lambda: number(tmp_path / "none"), [tmp_path / "none"])


class Storage:
    """Answers, or hangs until it is told to go on."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()

    def read(self, path: Path) -> int:
        self.goes_on.wait(60)
        return number(path)


def test_storage_that_hangs_holds_nobody_up_and_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock, storage = tmp_path / "number", Clock(), Storage()
    path.write_text("1")
    reread = Reread(lambda: storage.read(path), [path], clock=clock)
    storage.goes_on.clear()
    path.write_text("22")
    for clock.now_s in (1.0, 2.0, 7.0, 8.0, 60.0):
        assert reread() == 1
    assert caplog.messages == [f"{path} cannot be read: it hangs; what was read before stays in use"]
    storage.goes_on.set()
    wait_until("it was read", lambda: reread() == 22)


def test_storage_that_hangs_at_first_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framefeed.reread.FIRST_S", 0.05)
    path, storage = tmp_path / "number", Storage()
    path.write_text("1")
    storage.goes_on.clear()
    with pytest.raises(BadInput, match=r"number cannot be read: nothing came for 0.05 s"):
        Reread(lambda: storage.read(path), [path])
    storage.goes_on.set()
