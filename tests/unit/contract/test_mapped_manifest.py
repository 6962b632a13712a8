"""A manifest that processes share says what the manifest says, entry by entry; what is beside it may be anything."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefeed.errors import BadInput
from framefeed.manifest import MANIFEST_NAME, MAP_NAME, Manifest, Refusal, VideoEntry, read_manifest
from framefeed.mapped_manifest import is_filled, new_memory, shared_manifest
from framefeed.record_map import RecordMap, RecordWriter, copy_whole, read_note, write_note
from tests.unit.contract.test_manifest import ENTRY

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
chunks = st.lists(st.floats(0, 1e6), min_size=1, max_size=4).map(lambda starts: tuple(sorted(starts)))


@st.composite
def entries(draw: st.DrawFn) -> VideoEntry:
    starts = draw(chunks)
    sizes = st.lists(st.integers(1, 1 << 29), min_size=len(starts), max_size=len(starts)).map(tuple)
    return VideoEntry(
        video=draw(names),
        codec=draw(st.sampled_from(["h264", "hevc", "vp9"])),
        duration_s=draw(st.floats(0, 1e6)),
        fps=draw(st.floats(0, 1000)),
        width_px=draw(st.integers(1, 8192)),
        height_px=draw(st.integers(1, 8192)),
        media_bytes=draw(st.integers(0, 1 << 40)),
        chunk_start_s=starts,
        record_offset=draw(sizes),
        record_bytes=draw(sizes),
        record_digest=draw(st.sampled_from([(), ("0a",) * len(starts)])),
    )


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = new_memory()
    yield descriptor
    os.close(descriptor)


def shared(folder: Path, memory: int) -> Manifest:
    manifest, about = shared_manifest(folder, memory, lambda: b"looked")
    assert about == b"looked"
    return manifest


@settings(max_examples=30, deadline=None)
@given(st.lists(entries(), min_size=1, max_size=30), names, st.sampled_from(["map", "no map", "unsorted"]))
def test_a_shared_manifest_says_what_the_manifest_says(
    tmp_path_factory: pytest.TempPathFactory, videos: list[VideoEntry], other: str, how: str
) -> None:
    folder, memory = tmp_path_factory.mktemp("root"), new_memory()
    manifest = Manifest(videos={entry.video: entry for entry in videos}, refused=(Refusal(path="a", reason="b"),))
    identity = manifest.write(folder)
    if how != "map":
        (folder / MAP_NAME).unlink()
    if how == "unsorted":
        head, *lines = (folder / MANIFEST_NAME).read_text().splitlines()
        (folder / MANIFEST_NAME).write_text("\n".join([head, *reversed(lines)]))
    found = shared(folder, memory)
    assert found.identity == identity
    assert list(found.videos.items()) == sorted(read_manifest(folder).videos.items())
    assert found.videos.get(other) == manifest.videos.get(other)
    os.close(memory)


def test_it_is_read_once_and_nobody_can_change_it(tmp_path: Path, memory: int) -> None:
    Manifest(videos={ENTRY.video: ENTRY}).write(tmp_path)
    assert not is_filled(memory)
    first = shared(tmp_path, memory)
    assert is_filled(memory)
    Manifest(videos={"other": replace(ENTRY, video="other")}).write(tmp_path)
    again, about = shared_manifest(tmp_path, memory, lambda: b"looked later")
    assert (again, again.identity, about) == (first, first.identity, b"looked")
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(memory, b"x", 5000)
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(memory, 0)


def test_who_ends_while_it_fills_leaves_that_to_the_next(tmp_path: Path, memory: int) -> None:
    Manifest(videos={ENTRY.video: ENTRY}).write(tmp_path)
    child = os.fork()
    if not child:
        fcntl.lockf(memory, fcntl.LOCK_EX)
        os.write(memory, b"half of a manifest" * 1000)
        os._exit(0)
    os.waitpid(child, 0)
    assert dict(shared(tmp_path, memory).videos) == {ENTRY.video: ENTRY}


def test_processes_that_ask_at_once_find_one_whole_manifest(tmp_path: Path, memory: int) -> None:
    videos = {f"{number:06d}": replace(ENTRY, video=f"{number:06d}") for number in range(2000)}
    Manifest(videos=videos).write(tmp_path)
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            try:
                os._exit(0 if len(shared(tmp_path, memory).videos) == len(videos) else 1)
            except BaseException:
                os._exit(2)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


@pytest.mark.parametrize("spoilt", ["cut", "longer", "bit", "other", "empty", "note", "huge", "folder", "pipe"])
def test_a_map_that_is_none_is_refused_in_one_line_and_the_manifest_read(
    tmp_path: Path, memory: int, caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    path = tmp_path / MAP_NAME
    Manifest(videos={"other": replace(ENTRY, video="other")}).write(tmp_path)
    other = path.read_bytes()
    Manifest(videos={ENTRY.video: ENTRY}).write(tmp_path)
    data = path.read_bytes()
    path.unlink()
    if spoilt == "folder":
        path.mkdir()
    elif spoilt == "pipe":
        os.mkfifo(path)
    else:
        changed = {
            "cut": data[:-9],
            "longer": data + b"x",
            "bit": data[:4200] + bytes([data[4200] ^ 1]) + data[4201:],
            "other": other,
            "empty": b"",
            "note": data[:48] + b"\xff" * 40 + data[88:],
            "huge": data[:8] + b"\xff" * 16 + data[24:],
        }
        path.write_bytes(changed[spoilt])
    with caplog.at_level(logging.INFO):
        assert dict(shared(tmp_path, memory).videos) == {ENTRY.video: ENTRY}
    (line,) = [record.getMessage() for record in caplog.records if MAP_NAME in record.getMessage()]
    assert "is not used" in line
    assert "\n" not in line


def test_a_damaged_manifest_without_a_map_is_refused(tmp_path: Path, memory: int) -> None:
    Manifest(videos={ENTRY.video: ENTRY}).write(tmp_path)
    (tmp_path / MAP_NAME).unlink()
    head, line = (tmp_path / MANIFEST_NAME).read_text().splitlines()
    (tmp_path / MANIFEST_NAME).write_text("\n".join([head, line.replace("512", "0")]))
    with pytest.raises(BadInput, match="width_px is 0"):
        shared(tmp_path, memory)
    assert not is_filled(memory)


@pytest.mark.parametrize("record", [b"", b"\xc1", b"\x90", b"\x9a" + b"\x00" * 10])
def test_an_entry_of_a_hostile_map_is_refused_when_it_is_asked_for(tmp_path: Path, memory: int, record: bytes) -> None:
    """Its digest may be right: whoever can write the map can write that too."""
    Manifest(videos={ENTRY.video: ENTRY}).write(tmp_path)
    note = read_note((tmp_path / MAP_NAME).read_bytes())
    with (tmp_path / MAP_NAME).open("w+b") as file:
        writer = RecordWriter(file)
        writer.write([(ENTRY.video, record)])
        writer.places()
        writer.head(note)
    videos = shared(tmp_path, memory).videos
    assert list(videos) == [ENTRY.video]
    with pytest.raises(BadInput, match="manifest: "):
        videos[ENTRY.video]


@given(st.data())
def test_no_buffer_makes_a_map_do_anything_but_refuse_or_answer(data: st.DataObject) -> None:
    file = BytesIO()
    writer = RecordWriter(file)
    writer.write([("a", b"1"), ("b", b"22"), ("c", b"")])
    writer.places()
    writer.head(b"note")
    buffer = bytearray(file.getvalue())
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(buffer) - 1), st.integers(0, 255)), max_size=4)):
        buffer[at] = value
    for start in (0, data.draw(st.integers(4096, len(buffer) - 1))):
        buffer[start] ^= data.draw(st.sampled_from([0, 1, 128]))
    try:
        records = RecordMap(memoryview(buffer))
        for name in ("a", "b", "c", "d", ""):
            records.get(name)
    except ValueError:
        pass


def test_a_note_changes_no_record(tmp_path: Path) -> None:
    with (tmp_path / "map").open("w+b") as file:
        writer = RecordWriter(file)
        writer.write([("a", b"1")])
        writer.places()
        writer.head(b"note")
        write_note(file, b"another")
        file.seek(0)
        copy = BytesIO()
        copy_whole(file, copy)
    records = RecordMap(memoryview(copy.getvalue()))
    assert (dict(records), records.note) == ({"a": b"1"}, b"another")
