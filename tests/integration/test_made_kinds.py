"""The kinds of the hard files in other containers and codecs, made here: the right frame with the right colours at its
time, as the file is and as it is chunked, or one line that says what is not used.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest

from decode_server.indexing.probe import Probed, ProbeOptions, probe_file
from tests.barred import Stretch, read_grey, read_picture, write_video
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
