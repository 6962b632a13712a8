"""Turning boxes back and pixels forward is one and the same turn."""

import numpy as np
import pytest

from decode_server.orient import Orientation
from framefeed.crops import Box

CODED = np.arange(12 * 20 * 3, dtype=np.uint8).reshape(12, 20, 3)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270, -90])
def test_the_coded_box_turned_forward_is_the_displayed_box(rotation_deg: int, flipped: bool) -> None:
    displayed = np.rot90(CODED, rotation_deg // 90)
    box = Box(x_px=2, y_px=4, width_px=6, height_px=8)
    wanted = displayed[4:12, 2:8]
    wanted = wanted[:, ::-1] if flipped else wanted
    orientation = Orientation(rotation_deg=rotation_deg, flipped=flipped)
    b = orientation.coded_box(box, 20, 12)
    out = np.zeros_like(np.ascontiguousarray(wanted))
    target = orientation.coded_target(out)
    target[...] = CODED[b.y_px : b.y_px + b.height_px, b.x_px : b.x_px + b.width_px]
    orientation.write(target, out)
    assert np.array_equal(out, wanted)


def _i420(luma: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    flat = np.concatenate([luma.ravel(), u.ravel(), v.ravel()])
    return flat.reshape(luma.shape[0] * 3 // 2, luma.shape[1])


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_each_plane_of_i420_is_turned(rotation_deg: int, flipped: bool) -> None:
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((8, 12), (4, 6), (4, 6))]
    turned = [np.rot90(plane, rotation_deg // 90) for plane in planes]
    wanted = _i420(*[plane[:, ::-1] if flipped else plane for plane in turned])
    orientation = Orientation(rotation_deg=rotation_deg, flipped=flipped)
    out = np.zeros_like(wanted)
    target = orientation.coded_target(out)
    target[...] = _i420(*planes)
    orientation.write(target, out)
    assert np.array_equal(out, wanted)


def test_nothing_is_copied_when_nothing_turns() -> None:
    out = np.zeros((4, 4, 3), np.uint8)
    assert Orientation(rotation_deg=0, flipped=False).coded_target(out) is out
