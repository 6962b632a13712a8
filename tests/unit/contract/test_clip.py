"""A clip checks itself, and can be had without its padding."""

import numpy as np
import pytest
from msgspec.structs import replace

from framefeed.clip import Clip, ClipInfo, Colour
from framefeed.crops import Box

INFO = ClipInfo(
    pts_s=(1.0, 1.5, 1.5), box=Box(x_px=0, y_px=0, width_px=2, height_px=2), flipped=False,
    colour=Colour(), read_bytes=1, fed_packets=1, padding=(False, False, True),
)  # fmt: skip
PIXELS = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def test_truncating_drops_the_padding_frames_and_their_times() -> None:
    short = Clip(pixels=PIXELS, info=INFO).truncated()
    assert short.pixels[:, 0, 0, 0].tolist() == [0, 1]
    assert short.info == replace(INFO, pts_s=(1.0, 1.5), padding=())
    assert short.truncated() is short


def test_flags_are_one_for_each_frame() -> None:
    with pytest.raises(ValueError, match="2 padding flags for 3 frame times"):
        replace(INFO, padding=(False, True))
