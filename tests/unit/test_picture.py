"""Size, orientation and colour of a chunk's picture, as pure decisions and as pixels."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_server.media.picture import PictureFilter, SourcePicture, chunk_size_px, describe_picture
from framefeed.errors import UnsupportedMedia
from tests.videos import luma, make_numbered_video, numbered_frame, read_frame_number


def _picture(
    width_px: int, height_px: int, *, sar: Fraction = Fraction(1), upright: tuple[str, ...] = ()
) -> SourcePicture:
    return SourcePicture(
        width_px=width_px, height_px=height_px, pix_fmt="yuv420p", sar=sar, matrix=1, full_range=False, upright=upright
    )


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (_picture(1920, 1080), (512, 288)),
        (_picture(1080, 1920), (288, 512)),
        (_picture(1920, 1080, upright=("transpose=clock",)), (288, 512)),
        (_picture(320, 180), (320, 180)),
        (_picture(131, 77), (130, 76)),
        (_picture(340, 256, sar=Fraction(64, 51)), (426, 256)),
        (_picture(720, 576, sar=Fraction(16, 15)), (384, 288)),
        (_picture(720, 480, sar=Fraction(8, 9)), (384, 288)),
        (_picture(854, 480), (512, 288)),
        (_picture(1, 1), (2, 2)),
    ],
)
def test_size(picture: SourcePicture, wanted: tuple[int, int]) -> None:
    assert chunk_size_px(picture, short_side_px=288) == wanted


@given(st.integers(16, 5000), st.integers(16, 5000), st.integers(8, 540))
def test_size_is_even_never_larger_and_keeps_the_aspect(width_px: int, height_px: int, half: int) -> None:
    size = chunk_size_px(_picture(width_px, height_px), short_side_px=2 * half)
    assert size[0] % 2 == size[1] % 2 == 0
    assert size[0] <= width_px
    assert size[1] <= height_px
    assert min(size) == min(2 * half, 2 * (min(width_px, height_px) // 2))
    exact = min(size) * max(width_px, height_px) / min(width_px, height_px)
    assert abs(max(size) - exact) <= 2


@pytest.mark.parametrize(("rotation_deg", "back"), [(90, 3), (180, 2), (-90, 1), (0, 0)])
def test_rotated_videos_come_upright(tmp_path: Path, rotation_deg: int, back: int) -> None:
    path = make_numbered_video(tmp_path / "r.mp4", frames=3, width_px=200, height_px=120, rotation_deg=rotation_deg)
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            picture = describe_picture(frame, sar=None)
            chain = PictureFilter(picture, time_base=Fraction(1, 30), short_side_px=288, pix_fmt="yuv420p")
            shown = chain.apply(frame)
            assert (shown.width, shown.height) == ((120, 200) if rotation_deg % 180 else (200, 120))
            assert read_frame_number(np.rot90(luma(shown), back)) == number


def test_a_turn_that_is_no_quarter_is_refused(tmp_path: Path) -> None:
    path = make_numbered_video(tmp_path / "r.mp4", frames=1, width_px=128, height_px=96, rotation_deg=30)
    with av.open(str(path)) as container, pytest.raises(UnsupportedMedia, match="quarter turns"):
        describe_picture(next(container.decode(video=0)), sar=None)


def test_full_range_becomes_limited_with_the_same_greys() -> None:
    frame = av.VideoFrame(64, 64, "yuv420p")
    for plane, value in zip(frame.planes, (255, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.color_range, frame.pts, frame.time_base = 2, 0, Fraction(1, 30)
    picture = describe_picture(frame, sar=None)
    assert picture.full_range
    shown = PictureFilter(picture, time_base=Fraction(1, 30), short_side_px=288, pix_fmt="yuv420p").apply(frame)
    assert shown.color_range == 1
    assert set(luma(shown).ravel().tolist()) == {235}


def test_limited_range_that_is_not_scaled_is_untouched() -> None:
    frame = numbered_frame(5, width_px=128, height_px=96)
    before = luma(frame).copy()
    frame.pts, frame.time_base = 0, Fraction(1, 30)
    picture = describe_picture(frame, sar=None)
    shown = PictureFilter(picture, time_base=Fraction(1, 30), short_side_px=288, pix_fmt="yuv420p").apply(frame)
    assert np.array_equal(luma(shown), before)


@pytest.mark.parametrize(
    ("size", "tagged", "wanted"), [((640, 480), 2, 6), ((1280, 720), 2, 1), ((1920, 1080), 9, 9), ((640, 480), 1, 1)]
)
def test_the_matrix_is_kept_or_guessed_at_the_source_s_size(size: tuple[int, int], tagged: int, wanted: int) -> None:
    frame = av.VideoFrame(*size, "yuv420p")
    frame.colorspace, frame.pts, frame.time_base = tagged, 0, Fraction(1, 30)
    picture = describe_picture(frame, sar=None)
    assert picture.matrix == wanted
    shown = PictureFilter(picture, time_base=Fraction(1, 30), short_side_px=96, pix_fmt="yuv420p").apply(frame)
    assert shown.colorspace == wanted


def test_rgb_white_and_ten_bits_become_limited_eight_bits() -> None:
    white = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255, np.uint8), format="rgb24")
    deep = numbered_frame(9, width_px=128, height_px=96).reformat(format="yuv420p10le")
    for frame in (white, deep):
        frame.pts, frame.time_base = 0, Fraction(1, 30)
    shown = [
        PictureFilter(
            describe_picture(frame, sar=None), time_base=Fraction(1, 30), short_side_px=288, pix_fmt="yuv420p"
        ).apply(frame)
        for frame in (white, deep)
    ]
    assert abs(int(luma(shown[0])[32, 32]) - 235) <= 1
    assert shown[0].colorspace in (5, 6)
    assert shown[1].format.name == "yuv420p"
    assert read_frame_number(luma(shown[1])) == 9
