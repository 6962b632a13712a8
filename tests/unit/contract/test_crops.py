"""Crop policies: inside the frame, on the chroma grid, distributed as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.crops import Box, ExplicitBox, RandomResizedCrop, ResizedCentreCrop
from framefeed.errors import BadRequest

sides = st.integers(2, 3000)


@given(sides, sides, st.integers(0, 2**64 - 1))
def test_boxes_lie_inside_the_frame_on_the_chroma_grid(width_px: int, height_px: int, seed: int) -> None:
    for policy in (
        RandomResizedCrop(),
        RandomResizedCrop(scale=(0.08, 1.0)),
        ResizedCentreCrop(),
        ResizedCentreCrop(ratio=2),
    ):
        box = policy.choose(width_px, height_px, seed)
        assert box.x_px + box.width_px <= width_px
        assert box.y_px + box.height_px <= height_px
        assert not (box.x_px | box.y_px | box.width_px | box.height_px) & 1


def test_random_resized_crop_has_the_areas_and_ratios_it_says() -> None:
    boxes = [RandomResizedCrop(scale=(0.5, 1.0)).choose(512, 288, seed) for seed in range(4000)]
    areas = np.array([b.width_px * b.height_px for b in boxes]) / (512 * 288)
    ratios = np.array([b.width_px / b.height_px for b in boxes])
    assert 0.48 < areas.min() < 0.52
    assert 0.88 < ratios.min() < 0.92  # half the area of 512x288 is 256 wide when it is as high as the frame
    assert 1.30 < ratios.max() < 1.36
    placed = [(b.x_px, b.y_px) for b in boxes if b.width_px < 500]
    assert len(set(placed)) > 500


def test_ratio_is_uniform_in_its_logarithm_where_all_of_it_fits() -> None:
    boxes = [RandomResizedCrop(scale=(0.1, 0.2)).choose(1000, 1000, seed) for seed in range(4000)]
    logs = np.log([b.width_px / b.height_px for b in boxes])
    assert abs(logs.mean()) < 0.02
    assert abs(logs.std() - np.log(16 / 9) / np.sqrt(12)) < 0.01


def test_random_resized_crop_falls_back_to_the_centre_at_the_nearest_ratio() -> None:
    box = RandomResizedCrop(scale=(1.0, 1.0)).choose(1000, 100, 0)
    assert box == Box(x_px=432, y_px=0, width_px=132, height_px=100)


def test_centre_crop_is_the_largest_of_its_ratio() -> None:
    assert ResizedCentreCrop().choose(512, 288, 0) == Box(x_px=112, y_px=0, width_px=288, height_px=288)
    assert ResizedCentreCrop().choose(288, 512, 0) == Box(x_px=0, y_px=112, width_px=288, height_px=288)


def test_explicit_box_is_snapped_or_refused_never_moved_elsewhere() -> None:
    odd = ExplicitBox(box=Box(x_px=3, y_px=5, width_px=101, height_px=51))
    assert odd.choose(512, 288, 0) == Box(x_px=2, y_px=4, width_px=100, height_px=50)
    with pytest.raises(BadRequest, match=r"box 600x51\+3\+5 does not lie in the 512x288 frame"):
        ExplicitBox(box=Box(x_px=3, y_px=5, width_px=600, height_px=51)).choose(512, 288, 0)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.9, 0.5), (0.5, 1.1)])
def test_scales_out_of_bounds_are_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(BadRequest, match="scale is"):
        RandomResizedCrop(scale=scale)
