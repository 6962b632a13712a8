"""A server's entry: written whole, renewed, removed; others' dead ones swept; addresses that others can use."""

import os
import threading
from pathlib import Path

import pytest

from decode_server.service.membership.registry import (
    Registration,
    Sweeper,
    advertised,
    entry_path,
    write_entry,
)
from framefeed.errors import BadInput
from framefeed.server_entry import ServerEntry, read_entry
from tests.entries import entry
from tests.integration.serving import wait_until


def test_an_entry_is_renewed_until_the_server_ends_and_then_removed(tmp_path: Path) -> None:
    path = entry_path(tmp_path, "box-1:5555")
    registration = Registration(path, lambda beat: entry(beat=beat), sweep=True, lease_s=0.05)
    registration.start()
    wait_until("it was renewed", lambda: path.exists() and read_entry(path).beat > 3)
    registration.close()
    registration.close()
    assert os.listdir(tmp_path) == []


def test_a_registration_that_never_began_ends_in_silence(tmp_path: Path) -> None:
    Registration(tmp_path / "a.json", lambda beat: entry(beat=beat), sweep=False, lease_s=90).close()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"announce: .*a\.json cannot be written: .*nowhere is no folder"):
        Registration(tmp_path / "nowhere" / "a.json", lambda beat: entry(), sweep=False, lease_s=90)


def test_a_folder_that_fails_is_tried_on_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, beats = tmp_path / "registry" / "a.server.json", threading.Semaphore(0)
    path.parent.mkdir()

    def describe(beat: int) -> ServerEntry:
        beats.release()
        return entry(beat=beat)

    registration = Registration(path, describe, sweep=False, lease_s=0.05)
    path.parent.rmdir()
    registration.start()
    for _ in range(4):
        assert beats.acquire(timeout=20)
    path.parent.mkdir()
    wait_until("it is there", path.exists)
    registration.close()
    assert len([record for record in caplog.records if "cannot be kept up to date" in record.message]) == 1


def test_a_hung_folder_holds_up_nobody(tmp_path: Path) -> None:
    entered, until = threading.Event(), threading.Event()

    def describe(beat: int) -> ServerEntry:
        entered.set()
        assert until.wait(60)
        return entry(beat=beat)

    registration = Registration(tmp_path / "a.json", describe, sweep=False, lease_s=90)
    registration.start()
    assert entered.wait(20)
    registration.end()
    registration.close()
    until.set()


def test_what_dead_servers_left_is_swept_and_the_rest_is_let_be(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead.server.json", tmp_path / "alive.server.json"
    garbage, part = tmp_path / "garbage.server.json", tmp_path / "half.server.json.part"
    theirs = tmp_path / "notes.json"
    write_entry(dead, entry(beat=5, lease_s=10.0))
    write_entry(alive, entry(beat=1, lease_s=10.0))
    for path in (garbage, part, theirs):
        path.write_text('{"framefeed_')
    sweeper = Sweeper(tmp_path)
    for beat, now_s in enumerate((1000.0, 1010.0, 1030.0), start=2):
        write_entry(alive, entry(beat=beat, lease_s=10.0))
        sweeper.sweep(now_s)
    assert dead.exists(), "it stood still for 30 s, no longer than three leases"
    sweeper.sweep(1031.0)
    assert not dead.exists()
    assert alive.exists()
    write_entry(alive, entry(beat=9, lease_s=10.0))
    sweeper.sweep(1300.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive.server.json", "notes.json"]


def test_an_entry_renewed_at_the_last_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.server.json"
    write_entry(path, entry(beat=1, lease_s=10.0))
    sweeper = Sweeper(tmp_path)
    sweeper.sweep(0.0)
    entries = iter([entry(beat=1, lease_s=10.0), entry(beat=2, lease_s=10.0)])
    monkeypatch.setattr("decode_server.service.membership.registry.read_entry", lambda path: next(entries))
    sweeper.sweep(100.0)
    assert path.exists()


def test_two_processes_of_one_name_have_two_files(tmp_path: Path) -> None:
    one, two = entry_path(tmp_path, "box/../1:5555"), entry_path(tmp_path, "box/../1:5555")
    assert one != two
    assert one.parent == two.parent == tmp_path


@pytest.mark.parametrize(
    ("url", "host", "shown"),
    [
        ("tcp://10.0.0.5:5555", "", "tcp://10.0.0.5:5555"),
        ("tcp://10.0.0.5:5555", "decode-1", "tcp://decode-1:5555"),
        ("tcp://0.0.0.0:5555", "decode-1", "tcp://decode-1:5555"),
        ("grpc://[::]:5555", "fd00::7", "grpc://[fd00::7]:5555"),
        ("http://0.0.0.0:9555/metrics", "decode-1", "http://decode-1:9555/metrics"),
        ("tcp://127.0.0.1:5555", "decode-1", "tcp://127.0.0.1:5555"),
        ("tcp://[::1]:5555", "decode-1", "tcp://[::1]:5555"),
        ("shm://@a", "decode-1", "shm://@a"),
    ],
)
def test_what_others_are_told(url: str, host: str, shown: str) -> None:
    assert advertised(url, host) == shown


def test_a_wildcard_is_never_told() -> None:
    for url in ("tcp://0.0.0.0:5555", "tcp://[::]:5555"):
        assert "0.0.0.0" not in advertised(url, "")
        assert "[::]" not in advertised(url, "")


def test_what_was_planted_in_a_registry_is_not_written_through_and_stops_no_sweep(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    folder = tmp_path / "registry"
    folder.mkdir()
    path = folder / "a.server.json"
    for name in ("a.server.json", "a.server.json.part"):
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "aa-pipe.server.json")
    (folder / "ab-tree.server.json").mkdir()
    write_entry(folder / "dead.server.json", entry(beat=5, lease_s=10.0))
    write_entry(path, entry(beat=1, lease_s=1e6))
    assert (target.read_text(), read_entry(path).beat) == ("mine", 1)
    sweeper = Sweeper(folder)
    for now_s in (0.0, 100.0, 1000.0):
        sweeper.sweep(now_s)
    assert sorted(os.listdir(folder)) == ["a.server.json", "ab-tree.server.json"]
    assert target.read_text() == "mine"
