"""Files as people have them: turned, stretched, edited, with odd times, several streams, hidden and packed pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from msgspec.structs import replace

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.indexing.probe import probe
from decode_server.indexing.sidecar import SIDECAR_FOLDER
from decode_server.media.packet_index import HIDDEN, PacketIndex
from framefeed.crops import Box, ExplicitBox, ResizedCentreCrop, WholeFrame
from framefeed.errors import CorruptMedia, UnsupportedMedia
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from tests.field_pairs import make_field_pairs
from tests.matroska import rewrite
from tests.media_matrix import make_file
from tests.sequential import pixel_hash, sequential_frames
from tests.videos import luma, make_numbered_video, numbered_frame, read_frame_number


def _index(path: Path) -> PacketIndex:
    return probe(path, name=path.name, chunk=False, index_folder=path.parent)


def _numbers(root: Path, video: str, index_folder: Path | None = None, frames: int = 12) -> list[tuple[int, float]]:
    """(number in the pixels, time in s) of evenly spaced frames; pixels are checked against a full decode."""
    library = Library(root, index_folder=index_folder)
    entry = library.entry(video)
    ((_, index),) = library.chunks(entry, 0, entry.duration_s)
    truth = sequential_frames(root / index.path, index.stream)
    request = ClipRequest(
        video=video, start_s=0, end_s=entry.duration_s, sampling=Segments(frames=frames), crop=WholeFrame(),
        width_px=64, height_px=64,
    )  # fmt: skip
    engine = Engine(library)
    plan = engine.plan(request)
    found: dict[int, tuple[int, float]] = {}
    packets = {places: packet for run in plan.chunks[0].runs for packet, places in run.keep.items()}
    for places, frame in engine.frames(plan.chunks[0], {"read": 0.0}):
        assert pixel_hash(frame) == truth[packets[places]]
        for place in places:
            found[place] = read_frame_number(luma(frame)), plan.pts_s[place]
    return [found[place] for place in range(frames)]


def _rgb(root: Path, **fields: object) -> np.ndarray:
    library = Library(root)
    (video,) = library.manifest.videos
    request = ClipRequest(
        video=video, start_s=0, end_s=0.1, sampling=Segments(frames=1), crop=WholeFrame(), width_px=64, height_px=64
    )
    request = replace(request, **fields)  # type: ignore[arg-type]
    info = Engine(library).decode(request, out := np.empty(request.shape, np.uint8))
    assert info.box == request.crop.choose(*library.chunks(library.entry(video), 0, 1)[0][1].display_px, 0)
    return out[0]


def test_a_transport_stream_is_served_from_its_sidecar_wherever_the_index_lies(tmp_path: Path) -> None:
    make_file(tmp_path, "x264_no_pyramid.ts", frames=60)
    root = tmp_path / "media"
    build_index(root, index_folder=tmp_path / "index")
    assert all(number == round(at_s * 30) for number, at_s in _numbers(root, "x264_no_pyramid", tmp_path / "index"))
    (sidecar,) = (tmp_path / "index" / SIDECAR_FOLDER).iterdir()
    assert not (root / SIDECAR_FOLDER).exists()
    (root / "x264_no_pyramid.ts").touch()
    build_index(root, index_folder=tmp_path / "index")
    assert list((tmp_path / "index" / SIDECAR_FOLDER).iterdir()) == [sidecar], "a server may be reading it"
    for encoded in (tmp_path / "encoded").iterdir():
        encoded.unlink()
    make_file(tmp_path, "x264_no_pyramid.ts", frames=62)
    build_index(root, index_folder=tmp_path / "index")
    (fresh,) = (tmp_path / "index" / SIDECAR_FOLDER).iterdir()
    assert fresh != sidecar, "a new version has a new sidecar, and the old one goes"
    fresh.unlink()
    with pytest.raises(CorruptMedia, match=r"is gone; index the root again for its frame at 0\.\d+ s"):
        _numbers(root, "x264_no_pyramid", tmp_path / "index")
    build_index(root, index_folder=tmp_path / "index")
    assert _numbers(root, "x264_no_pyramid", tmp_path / "index")


@pytest.mark.parametrize(("strip", "laced"), [(b"\0", False), (b"", True), (b"\0", True), (b"", False)])
def test_matroska_with_stripped_headers_or_laced_blocks_is_served_whole(
    tmp_path: Path, strip: bytes, laced: bool
) -> None:
    options = {"preset": "veryfast", "x264-params": "keyint=12:bframes=0"}
    source = make_numbered_video(tmp_path / "s.mp4", frames=40, fps=25, width_px=176, height_px=144, options=options)
    (tmp_path / "root").mkdir()
    rewrite(source, tmp_path / "root" / "v.mkv", strip=strip, laced=laced)
    build_index(tmp_path / "root")
    assert bool(_index(tmp_path / "root" / "v.mkv").sidecar) == (laced or bool(strip))
    numbers = _numbers(tmp_path / "root", "v", frames=40)
    assert [number for number, _ in numbers] == list(range(40))
    assert all(number == round(at_s * 25) for number, at_s in numbers)


def test_hidden_vp8_frames_are_fed_and_never_shown(tmp_path: Path) -> None:
    source = make_file(tmp_path, "vp8.webm", frames=60)
    hidden = (7, 20, 21)
    with av.open(str(source)) as reader, av.open(str(tmp_path / "v.webm"), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for n, packet in enumerate(p for p in reader.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            if n in hidden:
                data[0] &= ~0x10
            copy = av.Packet(bytes(data))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            writer.mux(copy)
    index = _index(tmp_path / "v.webm")
    assert np.flatnonzero(index.flags & HIDDEN).tolist() == list(hidden)
    build_index(tmp_path)
    for number, at_s in _numbers(tmp_path, "v", frames=57):
        assert number == round(at_s * 30)
        assert number not in hidden


def test_packed_b_frames_in_avi_are_unpacked(tmp_path: Path) -> None:
    """DivX puts a P and the following B picture into one chunk, and a stand-in that shows nothing into the next."""
    source = make_numbered_video(
        tmp_path / "s.avi", frames=61, width_px=176, height_px=144, codec="mpeg4", options={"g": "24", "bf": "1"}
    )
    (tmp_path / "root").mkdir()
    with av.open(str(source)) as reader, av.open(str(tmp_path / "root" / "v.avi"), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        packets = [bytes(p) for p in reader.demux(video=0) if p.size]
        for n, data in enumerate(_packed(packets)):
            copy = av.Packet(data)
            copy.pts = copy.dts = n
            copy.time_base, copy.stream = Fraction(1, 30), stream
            writer.mux(copy)
    build_index(tmp_path / "root")
    for number, at_s in _numbers(tmp_path / "root", "v", frames=40):
        assert number == round(at_s * 30)


def _packed(packets: list[bytes]) -> list[bytes]:
    def kind(data: bytes) -> int:
        return data[data.find(b"\0\0\1\xb6") + 4] >> 6

    chunks: list[bytes] = []
    n = 0
    while n < len(packets):
        if n + 1 < len(packets) and kind(packets[n]) != 2 and kind(packets[n + 1]) == 2:
            chunks += [packets[n] + packets[n + 1], b"\0\0\1\xb6\x50\x00"]
            n += 2
        else:
            chunks.append(packets[n])
            n += 1
    return chunks


@pytest.mark.parametrize("name", ["v.ts", "v.mp4", "v.mkv"])
def test_fields_in_packets_of_their_own_are_whole_frames(tmp_path: Path, name: str) -> None:
    path = make_field_pairs(tmp_path / name, frames=20)
    index = _index(path)
    assert index.keys.tolist() == [0, 6, 12, 18]
    assert index.times_s == pytest.approx(np.arange(20) / 25, abs=0.002)
    build_index(tmp_path)
    library = Library(tmp_path)
    engine = Engine(library)
    for n in range(20):
        request = ClipRequest(
            video="v", start_s=n / 25 + 0.01, end_s=n / 25 + 0.02, sampling=Segments(frames=1), crop=WholeFrame(),
            width_px=32, height_px=32,
        )  # fmt: skip
        ((_, frame),) = engine.frames(engine.plan(request).chunks[0], {"read": 0.0})
        assert luma(frame)[::2].tolist() == [[20 + n] * 32] * 16
        assert luma(frame)[1::2].tolist() == [[120 + n] * 32] * 16


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    pts = [n / 30 + (0.4 if n > 20 else 0) + (0.01 if n % 3 else 0) for n in range(40)]
    for name in ("v.mp4", "v.mkv", "v.ts"):
        folder = tmp_path / name
        make_numbered_video(folder / name, frames=40, width_px=176, height_px=144, pts=[Fraction(t) for t in pts])
        build_index(folder)
        for number, at_s in _numbers(folder, "v", frames=40):
            assert at_s == pytest.approx(pts[number] - pts[0], abs=0.002)


def test_a_file_cut_at_its_start_shows_from_where_its_edit_list_says(tmp_path: Path) -> None:
    """B-frame delay and a cut make edit lists; what is before the cut is decoded but not shown."""
    source = make_numbered_video(tmp_path / "source.mkv", frames=60, width_px=176, height_px=144, options={"g": "30"})
    (tmp_path / "root").mkdir()
    with av.open(str(source)) as reader, av.open(str(tmp_path / "root" / "v.mp4"), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 200, None if packet.dts is None else packet.dts - 200
                packet.stream = stream
                writer.mux(packet)
    build_index(tmp_path / "root")
    numbers = _numbers(tmp_path / "root", "v", frames=30)
    first = numbers[0][0]
    assert 5 <= first <= 7
    assert all(number - first == round(at_s * 30) for number, at_s in numbers)


@pytest.mark.parametrize("default", [None, 0])
def test_the_container_s_default_of_several_streams_is_served_else_the_largest(
    tmp_path: Path, default: int | None
) -> None:
    small = make_numbered_video(tmp_path / "small.mp4", frames=10, width_px=96, height_px=64)
    large = make_numbered_video(tmp_path / "large.mp4", frames=20, width_px=256, height_px=144)
    with av.open(str(small)) as a, av.open(str(large)) as b, av.open(str(tmp_path / "both.mkv"), "w") as writer:
        streams = [writer.add_stream_from_template(r.streams.video[0]) for r in (a, b)]
        if default is not None:
            streams[default].disposition = Disposition.default
        for reader, stream in zip((a, b), streams, strict=True):
            for packet in reader.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    writer.mux(packet)
    index = _index(tmp_path / "both.mkv")
    assert (index.stream, index.width_px) == ((1, 256) if default is None else (0, 96))


def test_pictures_that_change_their_size_are_refused_with_the_second(tmp_path: Path) -> None:
    one = make_numbered_video(tmp_path / "a.h264", frames=20, width_px=96, height_px=64)
    two = make_numbered_video(tmp_path / "b.h264", frames=20, width_px=128, height_px=64)
    joined = tmp_path / "joined.h264"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    _remux_timed(joined, tmp_path / "root" / "v.ts")
    with pytest.raises(
        UnsupportedMedia, match=r"v\.ts: .* changes at 0\.67 s: size from 96x64 to 128x64; chunk it instead"
    ):
        _index(tmp_path / "root" / "v.ts")


def _remux_timed(source: Path, target: Path) -> None:
    """Give the packets of a raw stream without B-frames the times of 30 fps."""
    target.parent.mkdir(exist_ok=True)
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for n, packet in enumerate(p for p in reader.demux(video=0) if p.size):
            packet.pts = packet.dts = n
            packet.time_base, packet.stream = Fraction(1, 30), stream
            writer.mux(packet)


def test_wide_pixels_are_shown_square(tmp_path: Path) -> None:
    make_numbered_video(tmp_path / "v.mp4", frames=3, width_px=160, height_px=120, sar=Fraction(2))
    build_index(tmp_path)
    index = _index(tmp_path / "v.mp4")
    assert index.display_px == (320, 120)
    middle = _rgb(tmp_path, crop=ResizedCentreCrop(), width_px=120, height_px=120)
    frame = numbered_frame(1, width_px=160, height_px=120).to_ndarray(format="rgb24")[:, 50:110]
    wide = np.repeat(frame, 2, axis=1).astype(float)
    assert np.abs(middle - wide).mean() < 8


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(176, 144), (175, 143)])
def test_turned_videos_come_upright_at_any_size(tmp_path: Path, rotation_deg: int, size: tuple[int, int]) -> None:
    make_numbered_video(
        tmp_path / "v.mp4", frames=3, width_px=size[0], height_px=size[1], pix_fmt="yuv444p", rotation_deg=rotation_deg
    )
    build_index(tmp_path)
    upright = np.rot90(
        numbered_frame(1, width_px=size[0], height_px=size[1]).to_ndarray(format="rgb24"), rotation_deg // 90
    )
    box = _index(tmp_path / "v.mp4").grid.snapped(Box(x_px=10, y_px=20, width_px=64, height_px=64))
    out = _rgb(tmp_path, crop=ExplicitBox(box=box)) if not (box.x_px | box.y_px) & 1 else None
    if out is not None:
        cut = upright[box.y_px : box.y_px + 64, box.x_px : box.x_px + 64].astype(float)
        assert np.abs(out - cut).mean() < 8


def test_what_the_decoder_cannot_give_exactly_is_refused(tmp_path: Path) -> None:
    path = make_numbered_video(tmp_path / "v.mkv", frames=3, width_px=96, height_px=64, codec="ffv1", pix_fmt="bgr0")
    with pytest.raises(UnsupportedMedia, match=r"v\.mkv: pixel format is bgr0"):
        _index(path)
