"""Every damaged stretch of a root is found, listed and refused, and nothing that is whole."""

from __future__ import annotations

import os
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decode_server.chunking.chunk_run import chunk_videos
from decode_server.chunking.profiles import profile_named
from decode_server.chunking.transcode import ChunkSettings
from decode_server.chunking.verify import CheckTask, FileCheck, Verify, check_all, check_file, gop_runs, verify_root
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.clips.storage import Storage
from decode_server.indexing.index import build_index
from framefeed.crops import ResizedCentreCrop
from framefeed.errors import CorruptMedia, StorageFault
from framefeed.manifest import PACKETS_NAME, Manifest, read_manifest
from framefeed.quarantine import QUARANTINE_NAME, QuarantinedSpan, read_quarantine
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from tests.videos import SHARED_VIDEOS, make_numbered_video

SMALL = {"width_px": 128, "height_px": 96}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of 6 s in chunks of 2 s with a key frame every half second, indexed."""
    folder = tmp_path_factory.mktemp("verify")
    for name in ("a", "b"):
        make_numbered_video(folder / "in" / f"{name}.mp4", frames=180, **SMALL)
    settings = ChunkSettings(profile=profile_named("train", options="keyint=15"), chunk_s=2)
    chunk_videos([folder / "in"], folder / "root", settings=settings, jobs=1)
    build_index(folder / "root")
    return folder / "root"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "root")
    return tmp_path / "root"


def _tasks(root: Path, *, deep: bool = False) -> list[CheckTask]:
    return [
        CheckTask(root=root, index_folder=root, entry=entry, chunk=chunk, deep=deep)
        for entry in read_manifest(root).videos.values()
        for chunk in range(len(entry.chunk_start_s))
    ]


def _hurt(root: Path, video: str, chunk: int, packet: int) -> None:
    """Flip a byte in a packet of a chunk, keeping the file's size and time."""
    library = Library(root)
    index = library.index(library.entry(video), chunk)
    library.close()
    path = root / index.path
    status = path.stat()
    payload = bytearray(path.read_bytes())
    payload[int(index.offset[packet]) + int(index.size[packet]) // 2] ^= 0xFF
    path.write_bytes(payload)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _request(video: str, start_s: float, end_s: float) -> ClipRequest:
    return ClipRequest(
        video=video,
        start_s=start_s,
        end_s=end_s,
        sampling=Segments(frames=2),
        crop=ResizedCentreCrop(),
        width_px=32,
        height_px=32,
    )


def _decodes(root: Path, request: ClipRequest) -> bool:
    """Whether a server gives the clip. CorruptMedia of the quarantine only is let pass as no."""
    library = Library(root)
    engine = Engine(library)
    try:
        engine.decode(request, np.empty(request.clip_bytes, np.uint8))
    except CorruptMedia as error:
        if "quarantined by" not in str(error):
            raise
        return False
    finally:
        engine.close()
        library.close()
    return True


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_root_is_whole(root: Path, deep: bool) -> None:
    checks = verify_root(root, deep=deep, jobs=2)
    assert [check.spans for check in checks] == [()] * 6
    assert sum(check.checked_frames for check in checks) == (360 if deep else 0)
    assert not (root / QUARANTINE_NAME).exists()


@pytest.mark.parametrize("deep", [False, True])
def test_a_flipped_byte_quarantines_its_gop_for_servers_and_no_more(root: Path, deep: bool) -> None:
    _hurt(root, "a", 1, 20)
    checks = [check_file(task) for task in _tasks(root, deep=deep)]
    (found,) = [span for check in checks for span in check.spans]
    assert (found.video, found.start_s, found.end_s) == ("a", 2.5, 3.0)
    assert "its bytes differ from those that were indexed" in found.reason

    verify_root(root, deep=deep, jobs=1)
    assert read_quarantine(root).spans == (found,)
    assert not _decodes(root, _request("a", 2.6, 2.9))
    assert not _decodes(root, _request("a", 0, 6))
    assert all(_decodes(root, _request("a", *span)) for span in ((0, 2.5), (3.0, 6)))
    assert _decodes(root, _request("b", 2.6, 2.9))


def test_the_refusal_names_video_second_and_reason_and_opens_no_media(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hurt(root, "a", 1, 20)
    verify_root(root, jobs=1)
    library = Library(root)
    monkeypatch.setattr(Storage, "read", lambda *_: pytest.fail("the storage was read"))
    with pytest.raises(
        CorruptMedia, match=r"^a from 2\.500 to 3\.000 s: a\.mp4/2\.mp4 at 0\.633 s \(packet 20\): its bytes differ"
    ):
        Engine(library).plan(_request("a", 2.6, 2.9))


def test_packets_that_are_as_indexed_but_do_not_decode_are_found_by_deep_only(root: Path) -> None:
    """As when the file was damaged before it was indexed: bytes and checksums agree."""
    _hurt(root, "b", 0, 0)
    library = Library(root)
    entry = library.entry("b")
    index = library.index(entry, 0)
    path = root / index.path
    payload = bytearray(path.read_bytes())
    start, end = int(index.offset[30]), int(index.offset[30] + index.size[30])
    payload[start + 6 : end] = bytes(end - start - 6)
    path.write_bytes(payload)
    media = path.read_bytes()
    spans = zip(index.offset.tolist(), index.size.tolist(), strict=True)
    crc32 = np.array([zlib.crc32(media[at : at + size]) for at, size in spans], np.uint32)
    fresh = replace(index, crc32=crc32, mtime_ns=path.stat().st_mtime_ns)
    record = fresh.pack()
    with (root / PACKETS_NAME).open("ab") as file:
        offset = file.tell()
        file.write(record)
    library.close()
    manifest = read_manifest(root)
    hurt = replace(
        entry,
        record_offset=(offset, *entry.record_offset[1:]),
        record_bytes=(len(record), *entry.record_bytes[1:]),
        record_digest=(fresh.digest, *entry.record_digest[1:]),
    )
    Manifest(videos={**manifest.videos, "b": hurt}).write(root)
    assert [check.spans for check in verify_root(root, jobs=1)] == [()] * 6
    spans_found = [span for check in verify_root(root, deep=True, jobs=1) for span in check.spans]
    assert {span.video for span in spans_found} == {"b"}
    assert all(span.end_s <= 1.5 for span in spans_found)
    assert any(span.start_s <= 1.0 < span.end_s for span in spans_found)


def test_a_file_that_is_gone_or_cut_or_without_index_is_quarantined(root: Path) -> None:
    (root / "a.mp4" / "0.mp4").unlink()
    cut = root / "a.mp4" / "4.mp4"
    os.truncate(cut, cut.stat().st_size // 2)
    entry = read_manifest(root).videos["b"]
    with (root / PACKETS_NAME).open("r+b") as file:
        file.seek(entry.record_offset[2])
        file.write(b"\xff" * 20)
    found = [span for check in verify_root(root, jobs=1) for span in check.spans]
    assert [(span.video, span.end_s) for span in found] == [("a", 2.0), ("a", 6.0), ("b", 6.0)]
    assert [span.start_s for span in found if span.video == "b"] == [4.0]
    assert "is gone" in found[0].reason
    assert "ends at byte" in found[1].reason
    assert "packet index" in found[2].reason


def test_a_file_with_a_new_time_and_the_same_packets_is_noted_and_served(root: Path) -> None:
    os.utime(root / "a.mp4" / "0.mp4", (1, 1))
    checks = verify_root(root, jobs=1)
    assert [check.note.partition(" changed")[0] for check in checks if check.note] == ["a.mp4/0.mp4"]
    assert not any(check.spans for check in checks)


def test_a_repaired_file_leaves_the_list_and_lines_of_chunk_stay(root: Path, made: Path) -> None:
    lost = QuarantinedSpan(video="b", start_s=0, end_s=1, reason="torn source", found_by="chunk")
    _hurt(root, "a", 1, 20)
    verify_root(root, jobs=1)
    read_quarantine(root).replaced([lost], found_by="chunk").write(root)
    assert len(read_quarantine(root).spans) == 2
    shutil.copy2(made / "a.mp4" / "2.mp4", root / "a.mp4" / "2.mp4")
    verify_root(root, jobs=1)
    assert read_quarantine(root).spans == (lost,)


def test_storage_that_fails_is_no_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, anew: bool) -> bytearray:
        raise StorageFault("a.mp4/0.mp4: read failed (Input/output error)")

    monkeypatch.setattr(Library, "read", fail)
    check = check_file(_tasks(root)[0])
    assert check.spans == ()
    assert "Input/output error" in check.unread


def _abort_on_a(task: CheckTask) -> FileCheck:
    if task.entry.video == "a" and task.chunk == 1:
        os.abort()
    return check_file(task)


@pytest.mark.slow
def test_a_decoder_that_crashes_costs_its_own_file_only(root: Path) -> None:
    checks = list(check_all(_tasks(root), jobs=2, check=_abort_on_a))
    assert len(checks) == 6
    said = "a from 2.000 to 4.000 s: it ended the process that read it, twice"
    assert [str(span) for check in checks for span in check.spans] == [said]


def test_the_verb_says_what_it_found_and_fails(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Verify(root=root, jobs=1).run()
    assert "quarantined" in capsys.readouterr().out
    _hurt(root, "a", 1, 20)
    with pytest.raises(CorruptMedia, match=rf"1 stretches of 1 videos are quarantined, listed in .*{QUARANTINE_NAME}"):
        Verify(root=root, jobs=1).run()
    assert (
        "used in part: a: left out from 2.50 s to 3.00 s: a.mp4/2.mp4 at 0.633 s (packet 20)" in capsys.readouterr().out
    )


def test_the_list_lies_with_the_index_when_the_root_is_not_to_be_written(root: Path, tmp_path: Path) -> None:
    for name in ("framefeed.manifest.jsonl", PACKETS_NAME):
        (root / name).unlink()
    build_index(root, index_folder=tmp_path / "index")
    (root / "a.mp4" / "0.mp4").unlink()
    verify_root(root, index_folder=tmp_path / "index", jobs=1)
    assert not (root / QUARANTINE_NAME).exists()
    with pytest.raises(CorruptMedia, match="is gone"):
        Engine(Library(root, index_folder=tmp_path / "index")).plan(_request("a", 0, 1))


@pytest.mark.parametrize(
    "options", [{"x264-params": "open-gop=1:keyint=20:bframes=3:b-adapt=0"}, {"g": "20", "bf": "0"}]
)
def test_runs_hold_every_shown_packet_once(tmp_path: Path, options: dict[str, str]) -> None:
    make_numbered_video(tmp_path / "v.mp4", frames=100, options=options, **SMALL)
    build_index(tmp_path)
    library = Library(tmp_path)
    index = library.index(library.entry("v"), 0)
    kept = [packet for run in gop_runs(index) for packet in run.keep]
    assert sorted(kept) == sorted(index.shown.tolist())
    assert len(kept) == len(set(kept)) == 100
    assert not any(check.spans for check in verify_root(tmp_path, deep=True, jobs=1))


@pytest.mark.slow
def test_what_a_damaged_source_lost_is_quarantined_until_it_is_chunked_anew(tmp_path: Path) -> None:
    source = make_numbered_video(tmp_path / "in" / "v.mkv", frames=180, options={"g": "30"}, **SMALL)
    whole = source.read_bytes()
    hurt = bytearray(whole)
    middle = len(hurt) * 2 // 5
    hurt[middle : middle + 400] = bytes(400)
    source.write_bytes(hurt)
    settings = ChunkSettings(profile=profile_named("train"), chunk_s=2)
    (outcome,) = chunk_videos([source], tmp_path / "root", settings=settings, jobs=1)
    assert outcome.record is not None
    build_index(tmp_path / "root")
    spans = read_quarantine(tmp_path / "root").spans
    assert spans
    assert {span.found_by for span in spans} == {"chunk"}
    assert not _decodes(tmp_path / "root", _request("v", spans[0].start_s, spans[0].start_s + 0.1))
    assert _decodes(tmp_path / "root", _request("v", spans[-1].end_s, spans[-1].end_s + 0.5))
    source.write_bytes(whole)
    chunk_videos([source], tmp_path / "root", settings=settings, jobs=1)
    assert read_quarantine(tmp_path / "root").spans == ()


@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="no folder of real videos beside the repository")
def test_real_files_as_they_are_pass_deep_verification(tmp_path: Path) -> None:
    build_index(SHARED_VIDEOS, index_folder=tmp_path, jobs=2)
    checks = verify_root(SHARED_VIDEOS, index_folder=tmp_path, deep=True, jobs=2)
    assert {span.video for check in checks for span in check.spans} <= {"corrupted"}
