"""The kinds of the hard files in other containers and codecs, made here: the right frame with the right colours at its
time, as the file is and as it is chunked, or one line that says what is not used.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.probe import Probed, ProbeOptions, probe_file
from framefeed.crops import WholeFrame
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from tests.barred import BARS, Stretch, picture, read_grey, read_picture, write_video
from tests.strange import Strange, make_strange
from tests.two_ways import as_it_is, chunked, decoded, shown_at

X264 = {"preset": "veryfast", "x264-params": "keyint=12:bframes=2"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=2"}
VP8 = {"deadline": "realtime", "cpu-used": "8", "b": "400k"}
FILM = Stretch(frames=20, options=X264)
KINDS: dict[str, Stretch] = {
    "fcc.mp4": replace(FILM, matrix=4),
    "smpte240m.mkv": replace(FILM, matrix=7, codec="libx265", options=X265),
    "bt2020.ts": replace(FILM, matrix=9, codec="libx265", options=X265),
    "smpte240m_full.mov": replace(FILM, matrix=7, full_range=True),
    "msmpeg4.avi": replace(FILM, codec="msmpeg4", options={}),
    "wmv1.wmv": replace(FILM, codec="wmv1", options={}),
    "utvideo.avi": replace(FILM, codec="utvideo", options={}, pix_fmt="yuv422p"),
    "ffv1.avi": replace(FILM, codec="ffv1", options={}),
    "raw.avi": replace(FILM, codec="rawvideo", options={}, frames=4),
    "reordered.avi": replace(FILM, codec="mpeg4", options={"bf": "2"}),
    "reordered_h264.avi": FILM,
    "pause.flv": replace(FILM, times_s=[n / 25 + 70 * (n > 7) for n in range(20)]),
    "pause.webm": replace(FILM, codec="libvpx", options=VP8, times_s=[n / 25 + 70 * (n > 7) for n in range(20)]),
}


def _probe(path: Path) -> Probed:
    return probe_file(path, name=path.name, chunk=False, options=ProbeOptions(index_folder=path.parent))


def _joined(folder: Path, name: str, *stretches: Stretch) -> Path:
    parts = [write_video(folder / f"{n}_{name}", stretch).read_bytes() for n, stretch in enumerate(stretches)]
    path = folder / name
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("name", list(KINDS))
def test_a_file_of_the_kind_is_right_both_ways(tmp_path: Path, name: str) -> None:
    stretch = KINDS[name]
    path = write_video(tmp_path / name, stretch)
    seen, use = decoded(path)
    times_s = stretch.times_s or [n / 25 for n in range(stretch.frames)]
    assert seen == [(pytest.approx(at_s, abs=2e-3), n) for n, at_s in enumerate(times_s)]
    assert use.losses == ()
    root = as_it_is(path, tmp_path / "root")
    for n, shown in enumerate(shown_at(root, [at_s + 3e-3 for at_s in times_s])):
        number, off = read_picture(shown.rgb)
        assert (number, shown.since_s) == (n, pytest.approx(times_s[n], abs=2e-3))
        assert off < 12


@pytest.mark.parametrize(
    ("name", "stretch"),
    [("grey.mp4", FILM), ("grey.mkv", replace(FILM, codec="ffv1", options={}))],
)
@pytest.mark.parametrize("full_range", [False, True])
def test_grey_is_as_light_as_it_says(tmp_path: Path, name: str, stretch: Stretch, full_range: bool) -> None:
    path = write_video(tmp_path / name, replace(stretch, pix_fmt="gray", full_range=full_range, frames=6))
    root = as_it_is(path, tmp_path / "root")
    (shown,) = shown_at(root, [0.1])
    assert read_grey(shown.rgb) == pytest.approx((255, 0), abs=2)
    (planar,) = shown_at(root, [0.1], pixel_format="yuv420p")
    assert planar.rgb[72, 16] == pytest.approx(255 if full_range else 235, abs=2)
    root, _ = chunked(path, tmp_path / "chunks")
    (shown,) = shown_at(root, [0.1])
    assert read_grey(shown.rgb) == pytest.approx((255, 0), abs=3)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("v.mov", "png", "rgba"),
        ("v.avi", "png", "rgb24"),
        ("v.mov", "png", "pal8"),
        ("v.mov", "qtrle", "argb"),
        ("v.mkv", "ffv1", "bgra"),
        ("v.mkv", "ffv1", "yuva420p"),
        ("v.mkv", "ffv1", "yuv410p"),
        ("v.avi", "rawvideo", "pal8"),
        ("v.avi", "rawvideo", "yuyv422"),
        ("v.nut", "rawvideo", "nv12"),
    ],
)
def test_samples_that_are_not_planar_are_refused_with_what_helps_and_it_helps(
    tmp_path: Path, name: str, codec: str, pix_fmt: str
) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as writer:
        stream: Any = writer.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, pix_fmt
        for n in range(10):
            frame = _of_palette(n) if pix_fmt == "pal8" else _of_rgb(n).reformat(format=pix_fmt)
            frame.pts = n
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    assert _probe(path).use.refused.endswith("wanted planar YUV or grey of 8 to 16 bits; chunk it instead")
    root, record = chunked(path, tmp_path / "chunks")
    assert record.use.losses == ()
    for n, shown in enumerate(shown_at(root, [n / 25 + 3e-3 for n in range(10)])):
        number, off = read_picture(shown.rgb)
        assert number == n
        assert off < 20


def _of_rgb(number: int) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(picture(number, (160, 120)), format="rgb24")


def _of_palette(number: int) -> av.VideoFrame:
    rgb = picture(number, (160, 120))
    palette = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
    palette[: len(BARS)] = np.insert(BARS, 0, 255, axis=1)
    places = np.argmax((rgb[:, :, None] == BARS).all(axis=3), axis=2).astype(np.uint8)
    return av.VideoFrame.from_ndarray((places, palette), format="pal8")


def test_ycgco_is_chunked_and_what_cannot_be_converted_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", replace(FILM, matrix=8))
    assert _probe(path).use.refused == "its colour matrix is YCgCo; chunk it instead"
    assert [number for _, number in decoded(path)[0]] == list(range(20))
    with av.open(str(path)) as reader, av.open(str(tmp_path / "w.mkv"), "w") as writer:
        stream: Any = writer.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.colorspace = 10
        for n, frame in enumerate(reader.decode(video=0)):
            frame.pts, frame.colorspace, frame.pict_type = n, 10, 0
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    assert _probe(tmp_path / "w.mkv").use.refused.startswith("its colour matrix is BT.2020 constant luminance, wanted")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("v.ts", replace(FILM, codec="libx265", options=X265)),
        ("v.ts", replace(FILM, codec="mpeg2video", options={"g": "9", "bf": "2"})),
        ("v.mpg", replace(FILM, codec="mpeg2video", options={"g": "9"})),
        ("v.ts", replace(FILM, codec="mpeg4", options={"g": "9", "bf": "2"})),
    ],
)
def test_a_recording_of_another_size_is_joined_on(tmp_path: Path, name: str, first: Stretch) -> None:
    path = _joined(tmp_path, name, first, replace(first, first=64, size_px=(192, 144)), replace(first, first=128))
    seen, use = decoded(path, off=20)
    assert [number for _, number in seen] == [*range(20), *range(64, 84), *range(128, 148)]
    assert [at_s for at_s, _ in seen] == pytest.approx([n / 25 for n in range(60)], abs=2e-3)
    assert use.losses == ()
    assert _probe(path).use.refused == "its picture changes at 0.80 s: size from 160x120 to 192x144; chunk it instead"


@pytest.mark.parametrize(("codec", "options"), [("libx265", X265), ("libx264", X264)])
def test_frames_keep_their_own_colour_matrix(tmp_path: Path, codec: str, options: dict[str, str]) -> None:
    first = replace(FILM, codec=codec, options=options)
    path = _joined(tmp_path, "v.ts", first, replace(first, first=64, matrix=1, frames=24))
    assert [number for _, number in decoded(path)[0]] == [*range(20), *range(64, 88)]
    root = as_it_is(path, tmp_path / "root")
    for shown in shown_at(root, [n / 25 + 0.01 for n in range(44)]):
        assert read_picture(shown.rgb)[1] < 12


def test_a_repeated_header_is_served_and_another_one_is_chunked(tmp_path: Path) -> None:
    for second, refused in (
        (replace(FILM, first=64), ""),
        (replace(FILM, first=64, size_px=(192, 144)), "its picture"),
    ):
        parts = [write_video(tmp_path / f"{n}.flv", s).read_bytes() for n, s in enumerate((FILM, second))]
        path = tmp_path / "v.flv"
        path.write_bytes(parts[0] + parts[1][13:])
        seen, use = decoded(path)
        assert [number for _, number in seen] == [*range(20), *range(64, 84)]
        assert use.losses == ()
        assert _probe(path).use.refused.startswith(refused)
        assert bool(_probe(path).index) == (not refused)


@pytest.mark.parametrize(("transfer", "name"), [(16, "pq"), (18, "hlg"), (1, "")])
def test_hdr_is_passed_on_and_named(tmp_path: Path, transfer: int, name: str) -> None:
    path = write_video(tmp_path / "v.mkv", replace(FILM, matrix=9, codec="libx265", options=X265, transfer=transfer))
    said = [line for line in _probe(path).use.notes if "HDR" in line]
    assert said == ([f"its transfer is {name.upper()} (HDR), which is passed on and not tone-mapped"] if name else [])
    for root in (as_it_is(path, tmp_path / "root"), chunked(path, tmp_path / "chunks")[0]):
        with closing(Library(root)) as library, closing(Engine(library)) as engine:
            request = ClipRequest(
                video="v", start_s=0.0, end_s=0.4, sampling=Segments(frames=1), crop=WholeFrame(), width_px=64,
                height_px=64,
            )  # fmt: skip
            assert engine.decode(request, np.empty(request.shape, np.uint8)).colour.transfer == name


@pytest.mark.parametrize("name", ["v.ts", "v.m2ts"])
def test_an_open_gop_of_a_transport_stream_is_chunked_whole(tmp_path: Path, name: str) -> None:
    """Its headers come once: a key frame without any goes on with those, and the codec keeps what leads it."""
    options = {"preset": "veryfast", "x264-params": "keyint=8:min-keyint=8:open-gop=1:bframes=3"}
    seen, use = decoded(write_video(tmp_path / name, replace(FILM, frames=40, options=options)))
    assert [number for _, number in seen] == list(range(40))
    assert use.losses == ()


@pytest.mark.parametrize("pause_s", [0.2, 0.9, 1.5, 20.0])
def test_a_recording_that_begins_with_a_pause_is_joined_on(tmp_path: Path, pause_s: float) -> None:
    """Its clock restarts, and comes back to where the one before it ended: that is no wrong stamp."""
    first = replace(FILM, codec="libx265", options=X265, frames=29)
    times_s = [0.0, 0.04, *(0.08 + pause_s + n / 25 for n in range(14))]
    for frames in (9, 20):
        second = replace(first, first=64, frames=frames)
        third = replace(first, first=128, frames=16, times_s=times_s)
        seen, use = decoded(_joined(tmp_path, f"{frames}.ts", first, second, third))
        assert [number for _, number in seen] == [*range(29), *range(64, 64 + frames), *range(128, 144)]
        assert use.losses == ()
        assert len([line for line in use.notes if "its clock goes back" in line]) == 2


def test_frames_that_an_edit_list_drops_among_others_are_named(tmp_path: Path) -> None:
    """A key frame at which its muxer's edit ends, with two frames behind it that show before it and are not read."""
    times_s = [n / 25 + (0.86 if n > 8 else 0.0) for n in range(25)]
    path = write_video(tmp_path / "v.mp4", replace(FILM, codec="libx265", options=X265, frames=25, times_s=times_s))
    seen, use = decoded(path)
    assert [number for _, number in seen] == [*range(22), 24]
    (loss,) = use.losses
    assert (loss.start_s, loss.end_s) == (pytest.approx(times_s[22]), pytest.approx(times_s[24]))
    assert loss.reason == "2 frames of its edit list are not read"
    assert _probe(path).use.losses == use.losses


@pytest.mark.parametrize("edit", [(9, 21), (9, 12), (9, 10), (12, 29)])
def test_an_edit_of_uneven_pictures_keeps_their_times_and_its_own_end(tmp_path: Path, edit: tuple[int, int]) -> None:
    """FFmpeg gives packets behind an edit's begin the durations of those from the file's begin on."""
    times_s = [n / 25 + 0.08 * (n > 10) - 0.02 * (n > 19) + 3.0 * (n > 1) for n in range(29)]
    film = replace(FILM, codec="mjpeg", options={"q": "3"}, pix_fmt="yuvj420p", full_range=True, frames=29)
    strange = Strange(suffix="mov", stretches=(replace(film, times_s=times_s),), moved_s={}, edit=edit)
    path = make_strange(tmp_path, strange)
    seen, use = decoded(path, off=20)
    first, end = edit
    assert seen == [(pytest.approx(times_s[n] - times_s[first], abs=2e-3), n) for n in range(*edit)]
    assert (use.losses, use.notes) == ((), ())
    lasts_s = times_s[end] - times_s[first] if end < 29 else times_s[-1] - times_s[first] + 0.04
    assert use.used_s == pytest.approx(lasts_s, abs=2e-3)
    assert _probe(path).use.used_s == pytest.approx(lasts_s, abs=2e-3)


@pytest.mark.parametrize("moved", range(1, 7))
def test_a_frame_with_a_wrong_stamp_is_named_where_it_would_show(tmp_path: Path, moved: int) -> None:
    """Also where frames are reordered, so that the packet lies elsewhere."""
    options = {"preset": "veryfast", "x264-params": "bframes=3:keyint=12:b-pyramid=normal:b-adapt=0"}
    strange = Strange(suffix="flv", stretches=(replace(FILM, frames=9, options=options),), moved_s={moved: 5.0})
    seen, use = decoded(make_strange(tmp_path, strange))
    (missing,) = set(range(9)) - {number for _, number in seen}
    (loss,) = use.losses
    assert (loss.start_s, loss.end_s) == (
        pytest.approx(missing / 25, abs=0.041),
        pytest.approx(missing / 25, abs=0.041),
    )
