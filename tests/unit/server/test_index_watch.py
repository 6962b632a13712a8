"""The watch over a root's index: what is another data set, what is the same again, and what is only half there yet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from decode_server.clips.index_files import look
from decode_server.service.index_watch import IndexWatch
from framefeed.manifest import MANIFEST_NAME, PACKETS_NAME, Manifest, VideoEntry, identity_of
from tests.integration.serving import wait_until

ENTRY = VideoEntry(
    video="v", codec="h264", duration_s=31.5, fps=29.97, width_px=512, height_px=288, media_bytes=12345,
    chunk_start_s=(0.0,), record_offset=(0,), record_bytes=(100,), record_digest=("0a",),
)  # fmt: skip
OTHER = replace(ENTRY, record_digest=("1b",))
SERVED = identity_of({"v": ENTRY})


def write_packets(folder: Path, size_bytes: int = 100) -> None:
    part = folder / "packets.part"
    part.write_bytes(bytes(size_bytes))
    part.rename(folder / PACKETS_NAME)


def index(folder: Path, entry: VideoEntry = ENTRY) -> None:
    Manifest(videos={"v": entry}).write(folder, just_before=lambda: write_packets(folder))


class CountedWatch(IndexWatch):
    """Knows how often it has looked."""

    looks = 0

    def _look(self) -> None:
        super()._look()
        self.looks += 1


@contextmanager
def watching(folder: Path, served: str | None = SERVED) -> Iterator[CountedWatch]:
    watch = CountedWatch(folder, lambda: served, every_s=0.01)
    try:
        look_again(watch)
        yield watch
    finally:
        watch.close()


def look_again(watch: CountedWatch) -> None:
    """Return when it has looked at least five times more, or looks no more."""
    until = watch.looks + 5
    wait_until("looks", lambda: watch.looks >= until or watch.outdated)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_same_index_made_again_is_no_event(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index(tmp_path)
    with watching(tmp_path) as watch:
        for _ in range(2):
            index(tmp_path)
            look_again(watch)
        assert not watch.outdated
    assert not errors(caplog)


def test_another_index_is_told_with_both_identities(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index(tmp_path)
    with watching(tmp_path) as watch:
        index(tmp_path, OTHER)
        look_again(watch)
        assert f"the data set was {SERVED}, it is {identity_of({'v': OTHER})} now" in watch.outdated
        assert errors(caplog) == [f"{watch.outdated}; draining: restart this server to serve what is there now"]
        index(tmp_path)
    assert watch.outdated, "the workers hold on to what they opened: there is no way back"


def test_records_that_lie_elsewhere_are_another_index(tmp_path: Path) -> None:
    index(tmp_path)
    with watching(tmp_path) as watch:
        Manifest(videos={"v": ENTRY}).write(tmp_path, just_before=lambda: write_packets(tmp_path, 101))
        look_again(watch)
        assert watch.outdated


@pytest.mark.parametrize("name", [MANIFEST_NAME, PACKETS_NAME])
def test_a_file_that_is_gone_is_told_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.INFO)
    index(tmp_path)
    with watching(tmp_path) as watch:
        (tmp_path / name).rename(tmp_path / "away")
        look_again(watch)
        look_again(watch)
        assert not watch.outdated
        assert [name in line for line in errors(caplog)] == [True]
        (tmp_path / "away").rename(tmp_path / name)
        wait_until("it says so", lambda: any("as it was opened again" in line for line in caplog.messages))
        assert not watch.outdated


def test_packets_of_another_index_are_told_and_end_nothing_before_the_manifest_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index(tmp_path)
    with watching(tmp_path) as watch:
        write_packets(tmp_path)
        look_again(watch)
        assert not watch.outdated
        assert [PACKETS_NAME in line for line in errors(caplog)] == [True]
        index(tmp_path, OTHER)
        look_again(watch)
        assert watch.outdated


def test_nothing_is_outdated_before_it_is_known_what_is_served(tmp_path: Path) -> None:
    index(tmp_path, OTHER)
    with watching(tmp_path, None) as watch:
        index(tmp_path)
        look_again(watch)
        assert not watch.outdated


def test_what_was_served_without_an_identity_is_outdated_by_any_new_manifest(tmp_path: Path) -> None:
    index(tmp_path)
    with watching(tmp_path, "") as watch:
        assert not watch.outdated
        index(tmp_path)
        look_again(watch)
        assert "the data set was unknown" in watch.outdated


def test_a_storage_that_hangs_holds_up_the_watch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # opening it hangs until someone writes
    monkeypatch.setattr(
        "decode_server.service.index_watch.look", lambda folder: look(Path((folder / "pipe").read_text()))
    )
    watch = CountedWatch(tmp_path, lambda: SERVED, every_s=0.01)
    watch.close()
    assert watch.looks == 0, "it still hangs, and nobody waits for it"
    with (tmp_path / "pipe").open("w") as writer:
        writer.write(str(tmp_path))
    wait_until("the thread goes", lambda: watch.looks == 1)


def test_a_pipe_in_the_place_of_the_manifest_holds_nothing_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index(tmp_path)
    with watching(tmp_path) as watch:
        (tmp_path / MANIFEST_NAME).unlink()
        os.mkfifo(tmp_path / MANIFEST_NAME)
        look_again(watch)
        assert not watch.outdated
    (said,) = errors(caplog)
    assert "it is a pipe, wanted a regular file" in said
