"""The whole frames of a source: every one when it is whole, and before and after damage every one that is."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import pytest

from decode_server.chunking.source import SourceVideo
from decode_server.media.media_use import Loss
from framefeed.errors import CorruptMedia, StorageFault, UnsupportedMedia
from tests.videos import luma, make_numbered_video, read_frame_number


def _read(path: Path) -> tuple[list[tuple[int, Fraction]], tuple[Loss, ...]]:
    with SourceVideo(path) as source:
        seen = [
            (read_frame_number(luma(timed.frame)), Fraction(timed.ticks, source.ticks_per_s))
            for timed in source.frames()
        ]
        return seen, source.damages


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("h264.mp4", {"options": {"bf": "3", "g": "50"}}),
        ("pyramid.mkv", {"options": {"bf": "7", "x264-params": "b-pyramid=normal"}}),
        ("ntsc.mp4", {"fps": Fraction(30000, 1001)}),
        ("hevc.mp4", {"codec": "libx265"}),
        ("ten.mp4", {"pix_fmt": "yuv420p10le"}),
        ("transport.ts", {}),
        ("no_pts.avi", {"codec": "mpeg4", "options": {"bf": "2", "b": "2M"}}),
        ("vfr.mp4", {"pts": [Fraction(n * n, 1000) for n in range(60)]}),
    ],
)
def test_every_frame_comes_once_in_order_with_its_exact_time(
    tmp_path: Path, name: str, fields: dict[str, object]
) -> None:
    path = make_numbered_video(tmp_path / name, frames=60, width_px=128, height_px=96, **fields)
    seen, damages = _read(path)
    times = fields.get("pts") or [n / Fraction(fields.get("fps", 30)) for n in range(60)]  # type: ignore[arg-type]
    if name.endswith("mkv"):
        times = [Fraction(round(time * 1000), 1000) for time in times]  # Matroska counts milliseconds
    assert damages == ()
    assert seen == list(enumerate(times))


STRUCTURES: dict[str, tuple[str, dict[str, object]]] = {
    "h264": ("hurt.mkv", {"options": {"g": "20"}}),
    "open_gop": ("hurt.mkv", {"options": {"g": "20", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}}),
    "mp4": ("hurt.mp4", {"options": {"g": "20", "bf": "3"}}),
    "ts": ("hurt.ts", {"options": {"g": "20", "bf": "3"}}),
    "hevc": ("hurt.mkv", {"codec": "libx265", "options": {"x265-params": "log-level=0:keyint=20:min-keyint=20"}}),
    "mpeg4": ("hurt.mkv", {"codec": "mpeg4", "options": {"g": "20", "bf": "2", "b": "2M"}}),
}


def _with_hurt_packets(whole: Path, hurt: Path, numbers: set[int]) -> Path:
    """A copy of a file, packets of these numbers in decode order keeping only their first bytes."""
    with av.open(str(whole)) as source, av.open(str(hurt), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            copy = packet
            if number in numbers:
                copy = av.Packet(bytes(packet)[:6] + b"\xff" * 40)
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe = packet.is_keyframe
            copy.stream = stream
            target.mux(copy)
    return hurt


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("structure", STRUCTURES)
def test_whole_frames_around_hurt_packets_are_used_and_no_others(tmp_path: Path, structure: str, seed: int) -> None:
    """Each frame that comes out is bit for bit the one of the whole file at its time; the rest lies in the damages."""
    name, fields = STRUCTURES[structure]
    rng = random.Random(seed)
    whole = make_numbered_video(
        tmp_path / f"whole{Path(name).suffix}", frames=100, width_px=128, height_px=96, **fields
    )
    at = rng.randrange(5, 55)
    hurt = _with_hurt_packets(whole, tmp_path / name, {at})
    with av.open(str(whole)) as container:
        true = [bytes(frame.planes[0]) for frame in container.decode(video=0)]
    with SourceVideo(hurt) as source:
        seen = [(timed, read_frame_number(luma(timed.frame))) for timed in source.frames()]
        ticks_per_s, damages = source.ticks_per_s, source.damages
    assert all(bytes(timed.frame.planes[0]) == true[number] for timed, number in seen)
    assert [number for _, number in seen] == [round(timed.ticks / ticks_per_s * 30) for timed, _ in seen]
    numbers = {number for _, number in seen}
    lost = set(range(100)) - numbers
    assert lost
    assert len(lost) <= 45, "reading resumes at one of the next two key frames"
    spans = [(d.start_s - 0.002, 9.0 if d.end_s is None else d.end_s - 0.002) for d in damages]
    assert all(any(start_s <= n / 30 < end_s for start_s, end_s in spans) for n in lost)
    assert not any(start_s + 0.004 <= n / 30 < end_s - 0.004 for start_s, end_s in spans for n in numbers)
    ends_s = [timed.end_ticks / ticks_per_s for timed, _ in seen]
    assert all(any(-0.004 < end_s - start_s < 0.07 for end_s in ends_s) or start_s < 0.004 for start_s, _ in spans)


def test_several_damages_are_listed_apart(tmp_path: Path) -> None:
    whole = make_numbered_video(tmp_path / "w.mkv", frames=160, width_px=128, height_px=96, options={"g": "20"})
    seen, damages = _read(_with_hurt_packets(whole, tmp_path / "hurt.mkv", {30, 95}))
    assert len(damages) == 2
    assert [damage.end_s for damage in damages] == [pytest.approx(40 / 30, abs=2e-3), pytest.approx(100 / 30, abs=2e-3)]
    assert {n for n, _ in seen} >= set(range(20)) | set(range(40, 80)) | set(range(100, 160))


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4", "cut.ts"])
def test_a_cut_off_file_is_damage_and_its_first_part_is_used(tmp_path: Path, name: str) -> None:
    options = {"movflags": "+faststart"} if name.endswith("mp4") else {}
    whole = make_numbered_video(
        tmp_path / f"whole_{name}", frames=120, width_px=128, height_px=96, muxer_options=options
    )
    cut = tmp_path / name
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    seen, damages = _read(cut)
    assert 30 < len(seen) < 110
    assert [number for number, _ in seen] == [round(time * 30) for _, time in seen]
    if not name.endswith("ts"):  # a transport stream does not say how long it should be
        assert [damage.end_s for damage in damages] == [None]
        assert len(seen) == seen[-1][0] + 1


def test_a_stream_that_starts_in_mid_gop_starts_at_its_first_keyframe(tmp_path: Path) -> None:
    whole = make_numbered_video(tmp_path / "w.ts", frames=120, width_px=128, height_px=96, options={"g": "40"})
    cut = tmp_path / "cut.ts"
    payload = whole.read_bytes()
    cut.write_bytes(payload[len(payload) // 188 // 2 * 188 :])
    with SourceVideo(cut) as source:
        seen = [(read_frame_number(luma(timed.frame)), timed.ticks) for timed in source.frames()]
        assert source.timeline.headless > 0
        assert source.damages == ()
    assert seen == [(80 + n, n * 3000) for n in range(40)]


@pytest.mark.parametrize("frames", [12, 30])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("b.ts", {}),
        ("b.ts", {"codec": "mpeg2video", "options": {"bf": "2", "g": "9"}}),
        ("b.mpg", {"codec": "mpeg2video"}),
    ],
)
def test_recordings_joined_end_to_end_are_timed_one_behind_the_other(
    tmp_path: Path, name: str, frames: int, fields: dict[str, object]
) -> None:
    first = make_numbered_video(tmp_path / f"a{Path(name).suffix}", frames=frames, width_px=128, height_px=96, **fields)
    both = tmp_path / name
    both.write_bytes(first.read_bytes() * 2)
    with SourceVideo(both) as source:
        seen = [(read_frame_number(luma(t.frame)), t.ticks / source.ticks_per_s) for t in source.frames()]
        assert source.damages == ()
        assert any("its clock goes back by" in note for note in source.use.notes)
    assert [number for number, _ in seen] == [*range(frames)] * 2
    assert [at_s for _, at_s in seen] == pytest.approx([n / 30 for n in range(2 * frames)], abs=0.002)


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    garbage = tmp_path / "x.mp4"
    garbage.write_bytes(b"hello" * 100)
    with pytest.raises(CorruptMedia, match="cannot be opened"):
        SourceVideo(garbage)
    with pytest.raises(StorageFault, match="No such file"):
        SourceVideo(tmp_path / "missing.mp4")
    sound = tmp_path / "sound.mkv"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnsupportedMedia, match="no video stream"):
        SourceVideo(sound)
