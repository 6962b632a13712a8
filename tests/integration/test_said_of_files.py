"""What a file holds besides what is served of it, or is about to hold, is said by name: `index` and `chunk` alike."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from decode_server.chunking.chunk_run import chunk_videos
from decode_server.chunking.profiles import profile_named
from decode_server.chunking.source import SourceVideo
from decode_server.chunking.transcode import ChunkSettings
from decode_server.indexing.index import Build, build_index, index_root
from decode_server.indexing.probe import ProbeOptions, probe_file
from decode_server.sources.unchanged import change_since
from framefeed.errors import BadInput
from framefeed.manifest import read_manifest
from framefeed.quarantine import read_quarantine
from tests.barred import Stretch, write_video
from trainer_client.samples import VideoWindows

INTERLACED = {"flags": "+ilme+ildct", "x264-params": "tff=1"}


def _notes(path: Path) -> tuple[str, ...]:
    """What is noted of a file, by both verbs."""
    probed = probe_file(path, name=path.name, chunk=False, options=ProbeOptions(index_folder=path.parent))
    with SourceVideo(path) as source:
        assert source.use.notes == probed.use.notes
    assert probed.use.state == "whole"
    return probed.use.notes


@pytest.mark.parametrize("name", ["tv.ts", "tv.mp4"])
def test_interlaced_video_is_noted(tmp_path: Path, name: str) -> None:
    assert _notes(write_video(tmp_path / name, Stretch(options=INTERLACED))) == (
        "interlaced: both fields of a frame are served woven, as they are decoded",
    )
    assert _notes(write_video(tmp_path / f"progressive_{name}", Stretch())) == ()


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "indexed"),
    [
        ("png.mov", "png", "rgba", False),
        ("grey.mov", "png", "ya8", False),
        ("ffv1.mkv", "ffv1", "bgra", False),
        ("yuv.mkv", "ffv1", "yuva420p", False),
        ("beside.webm", "libvpx-vp9", "yuva420p", True),
    ],
)
def test_alpha_is_noted(tmp_path: Path, name: str, codec: str, pix_fmt: str, indexed: bool) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, width=64, height=48, pix_fmt=pix_fmt)
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 4), 40 * number, np.uint8), format="rgba")
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode())
    note = "its alpha channel is dropped: colours are served as stored, over no background"
    if indexed:
        assert _notes(path) == (note,)
        return
    refused = probe_file(path, name=name, chunk=False, options=ProbeOptions(index_folder=tmp_path)).use.refused
    assert refused.startswith(f"pixel format is {pix_fmt}, wanted planar YUV or grey"), "which has no alpha"
    with SourceVideo(path) as source:
        assert source.use.notes == (note,)


def test_a_second_mp4_behind_the_end_of_the_first_is_named(tmp_path: Path) -> None:
    first, second = (write_video(tmp_path / name, Stretch()).read_bytes() for name in ("a.mp4", "b.mp4"))
    (tmp_path / "joined.mp4").write_bytes(first + second)
    (note,) = _notes(tmp_path / "joined.mp4")
    assert note == f"{len(second) / 1000:.2f} kB behind its end are not read: a second file was appended"


def test_fragments_and_padding_are_no_second_file(tmp_path: Path) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    assert _notes(write_video(tmp_path / "fragments.mp4", Stretch(), container=fragments)) == ()
    padded = write_video(tmp_path / "padded.mp4", Stretch())
    padded.write_bytes(padded.read_bytes() + bytes(1000))
    assert _notes(padded) == ()
    recorded = write_video(tmp_path / "recorded.ts", Stretch())
    recorded.write_bytes(recorded.read_bytes() + bytes(1000))
    assert _notes(recorded) == ()


def test_a_file_that_is_still_being_written_is_refused_until_it_is_complete(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "made" / "a.ts", Stretch()).read_bytes()
    root = tmp_path / "root"
    root.mkdir()
    settings = ChunkSettings(profile=profile_named("archive"))
    with (root / "a.ts").open("wb", buffering=0) as writer:
        writer.write(whole[: len(whole) // 376 * 188])
        with pytest.raises(BadInput, match="still open to a program that writes to it"):
            build_index(root)
        (outcome,) = chunk_videos([root], tmp_path / "chunks", settings=settings, jobs=1)
        assert "still open to a program that writes to it" in outcome.reason
        assert outcome.retry
        assert not list((tmp_path / "chunks").rglob("*.mp4"))
        writer.write(whole[len(whole) // 376 * 188 :])
    manifest, report = index_root(root, build=Build())
    assert manifest.videos["a"].duration_s == pytest.approx(1.0)
    assert report.files[0].use.state == "whole"


def test_a_file_that_grew_behind_its_reading_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(b"1234")
    status = path.stat()
    size_bytes, mtime_ns = status.st_size, status.st_mtime_ns
    assert change_since(path, size_bytes=size_bytes, mtime_ns=mtime_ns) == ""
    with path.open("ab") as file:
        file.write(b"5")
    said = change_since(path, size_bytes=size_bytes, mtime_ns=mtime_ns, when="since it was read")
    assert said == "changed since it was read (4 to 5 bytes); try again when it is complete"


def test_no_window_is_planned_over_what_is_damaged_in_its_file(tmp_path: Path) -> None:
    """Damage in the middle of a transport stream, which its counters tell of."""
    whole = bytearray(write_video(tmp_path / "a.ts", Stretch(frames=150, options={"g": "25"})).read_bytes())
    packets = len(whole) // 188
    del whole[packets // 2 * 188 : (packets // 2 + 2) * 188]
    (tmp_path / "a.ts").write_bytes(whole)
    build_index(tmp_path)
    (span,) = read_quarantine(tmp_path).of("a")
    assert 0 < span.start_s < span.end_s < 6
    windows = VideoWindows(read_manifest(tmp_path), window_s=0.2, quarantine=read_quarantine(tmp_path))
    assert windows.quarantined_windows > 0
    assert all(s.end_s <= span.start_s + 1e-3 or s.start_s >= span.end_s - 1e-3 for s in windows)
    write_video(tmp_path / "a.ts", Stretch(frames=150))
    build_index(tmp_path)
    assert read_quarantine(tmp_path).spans == ()
