"""The clean frames of a source: every one when it is whole, a true prefix when it is damaged."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import pytest

from decode_server.source import Damage, SourceVideo
from framefeed.errors import CorruptMedia, StorageFault, UnsupportedMedia
from tests.videos import luma, make_numbered_video, read_frame_number


def _read(path: Path) -> tuple[list[tuple[int, Fraction]], Damage | None]:
    with SourceVideo(path) as source:
        seen = [
            (read_frame_number(luma(timed.frame)), Fraction(timed.ticks, source.ticks_per_s))
            for timed in source.frames()
        ]
        return seen, source.damage


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
    seen, damage = _read(path)
    times = fields.get("pts") or [n / Fraction(fields.get("fps", 30)) for n in range(60)]  # type: ignore[arg-type]
    if name.endswith("mkv"):
        times = [Fraction(round(time * 1000), 1000) for time in times]  # Matroska counts milliseconds
    assert damage is None
    assert seen == list(enumerate(times))


@pytest.mark.parametrize("seed", range(12))
def test_hurt_packets_leave_a_true_prefix_or_nothing_wrong(tmp_path: Path, seed: int) -> None:
    """What comes out is frames 0, 1, 2… without a gap, and none that needs the hurt packet."""
    rng = random.Random(seed)
    whole = make_numbered_video(tmp_path / "whole.mp4", frames=60, width_px=128, height_px=96, options={"g": "20"})
    hurt, at = tmp_path / "hurt.mkv", rng.randrange(5, 55)
    with av.open(str(whole)) as source, av.open(str(hurt), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number, packet in enumerate(packets):
            if number == at:
                broken = av.Packet(bytes(packet)[:4] + b"\xff" * 40)
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                packet = broken  # noqa: PLW2901
            packet.stream = stream
            target.mux(packet)
    seen, damage = _read(hurt)
    assert damage is not None
    assert [number for number, _ in seen] == list(range(len(seen)))
    assert at - 8 <= len(seen) <= at
    assert damage.second_s == pytest.approx((len(seen) - 1) / 30, abs=0.002)


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4", "cut.ts"])
def test_a_cut_off_file_is_damage_and_its_first_part_is_used(tmp_path: Path, name: str) -> None:
    options = {"movflags": "+faststart"} if name.endswith("mp4") else {}
    whole = make_numbered_video(
        tmp_path / f"whole_{name}", frames=120, width_px=128, height_px=96, muxer_options=options
    )
    cut = tmp_path / name
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    seen, damage = _read(cut)
    assert 30 < len(seen) < 110
    assert [number for number, _ in seen] == [round(time * 30) for _, time in seen]
    if not name.endswith("ts"):  # a transport stream does not say how long it should be
        assert damage is not None
        assert len(seen) == seen[-1][0] + 1


def test_a_stream_that_starts_in_mid_gop_starts_at_its_first_keyframe(tmp_path: Path) -> None:
    whole = make_numbered_video(tmp_path / "w.ts", frames=120, width_px=128, height_px=96, options={"g": "40"})
    cut = tmp_path / "cut.ts"
    payload = whole.read_bytes()
    cut.write_bytes(payload[len(payload) // 188 // 2 * 188 :])
    with SourceVideo(cut) as source:
        seen = [(read_frame_number(luma(timed.frame)), timed.ticks) for timed in source.frames()]
        assert source.skipped_packets > 0
        assert source.damage is None
    assert seen == [(80 + n, n * 3000) for n in range(40)]


def test_times_that_go_back_end_the_clean_part(tmp_path: Path) -> None:
    first = make_numbered_video(tmp_path / "a.ts", frames=30, width_px=128, height_px=96)
    both = tmp_path / "b.ts"
    both.write_bytes(first.read_bytes() * 2)
    seen, damage = _read(both)
    assert [number for number, _ in seen] == list(range(len(seen)))
    assert 20 <= len(seen) <= 30
    assert damage is not None


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
