"""Turning boxes back and pixels forward is one and the same turn."""

import numpy as np
import pytest

from decode_server.clips.orient import Orientation, i420_planes
from decode_server.media.sample_grid import SampleGrid
from framefeed.crops import Box

RNG = np.random.default_rng(0)
CODED = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
every_turn = pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270, -90])
mirrored_or_not = pytest.mark.parametrize("flipped", [False, True])


@mirrored_or_not
@every_turn
def test_the_coded_box_turned_forward_is_the_displayed_box(rotation_deg: int, flipped: bool) -> None:
    wanted = np.rot90(CODED, rotation_deg // 90)[4:12, 2:8]
    wanted = wanted[:, ::-1] if flipped else wanted
    orientation = Orientation(rotation_deg=rotation_deg, flipped=flipped)
    grid = SampleGrid(width_px=20, height_px=12, rotation_deg=rotation_deg)
    b = grid.coded_box(Box(x_px=2, y_px=4, width_px=6, height_px=8))
    window = CODED[b.y_px : b.y_px + b.height_px, b.x_px : b.x_px + b.width_px]
    out = np.zeros(wanted.shape, np.uint8)
    assert window.shape[:2] == orientation.coded_shape(out.shape[:2])
    orientation.write([window], [out])
    assert np.array_equal(out, wanted)


@mirrored_or_not
@every_turn
def test_each_plane_of_i420_is_turned(rotation_deg: int, flipped: bool) -> None:
    coded = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((8, 12), (4, 6), (4, 6))]
    turned = [np.rot90(plane, rotation_deg // 90) for plane in coded]
    wanted = [plane[:, ::-1] if flipped else plane for plane in turned]
    height_px, width_px = wanted[0].shape
    out = np.zeros((height_px * 3 // 2, width_px), np.uint8)
    orientation = Orientation(rotation_deg=rotation_deg, flipped=flipped)
    orientation.write(coded, i420_planes(out))
    assert out.tobytes() == b"".join(plane.tobytes() for plane in wanted)
