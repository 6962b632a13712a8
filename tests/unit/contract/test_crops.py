"""Crop policies: inside the frame, on the chroma grid, distributed as they say."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.crops import (
    Box,
    CentreCrop,
    ExplicitBox,
    Letterbox,
    MultiScaleCrop,
    RandomCrop,
    RandomResizedCrop,
    ResizedCentreCrop,
    ViewCrop,
    WholeFrame,
)
from framefeed.errors import BadRequest

sides = st.integers(2, 3000)


@given(sides, sides, st.integers(0, 2**64 - 1))
def test_boxes_lie_inside_the_frame_on_the_chroma_grid(width_px: int, height_px: int, seed: int) -> None:
    for policy in (
        RandomResizedCrop(),
        RandomResizedCrop(scale=(0.08, 1.0)),
        ResizedCentreCrop(),
        ResizedCentreCrop(ratio=2),
        MultiScaleCrop(),
        MultiScaleCrop(shares=(0.9, 0.1), snap_px=0),
        RandomCrop(width_px=2, height_px=2),
        CentreCrop(width_px=2, height_px=2),
        ViewCrop(view=seed % 3),
        ViewCrop(view=0, views=1, ratio=0.5),
        WholeFrame(),
        Letterbox(),
    ):
        box = policy.choose(width_px, height_px, seed)
        assert box.x_px + box.width_px <= width_px
        assert box.y_px + box.height_px <= height_px
        assert not (box.x_px | box.y_px | box.width_px | box.height_px) & 1
        assert policy.choose(width_px, height_px, seed) == box


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


def test_multi_scale_crop_has_the_published_sides_and_places() -> None:
    boxes = [MultiScaleCrop().choose(512, 288, seed) for seed in range(6000)]
    # 288 · (1, 0.875, 0.75, 0.66), rounded down, then to even edges
    sides = [288, 252, 216, 190]
    pairs = {(b.width_px, b.height_px) for b in boxes}
    assert pairs == {(w, h) for i, w in enumerate(sides) for j, h in enumerate(sides) if abs(i - j) <= 1}
    square = [b for b in boxes if (b.width_px, b.height_px) == (216, 216)]
    places = {(b.x_px, b.y_px) for b in square}  # steps of (512 - 216) // 4 = 74 and (288 - 216) // 4 = 18
    corners = {(x, y) for x in (0, 148, 296) for y in (0, 36, 72)}
    assert places == corners | {(x, y) for x in (74, 222) for y in (18, 54)}
    counts = np.array([sum((b.x_px, b.y_px) == place for b in square) for place in places])
    assert counts.min() > 0.5 * len(square) / 13


def test_multi_scale_crop_takes_the_size_of_the_clip_where_it_is_near() -> None:
    sides = {MultiScaleCrop().choose(400, 256, seed).width_px for seed in range(200)}
    assert sides == {256, 224, 192, 168}  # 256 · 0.875 is 224 exactly; · 0.66 is 168.96
    near = {MultiScaleCrop(snap_px=194).choose(400, 256, seed).width_px for seed in range(200)}
    assert near == {256, 224, 194, 168}


def test_native_crops_keep_the_scale_or_refuse_the_frame() -> None:
    assert CentreCrop(width_px=224, height_px=112).choose(512, 288, 0) == Box(
        x_px=144, y_px=88, width_px=224, height_px=112
    )
    boxes = [RandomCrop(width_px=500, height_px=280).choose(512, 288, seed) for seed in range(500)]
    assert {b.x_px for b in boxes} == set(range(0, 13, 2))
    assert {b.y_px for b in boxes} == set(range(0, 9, 2))
    for crop in (RandomCrop(width_px=224, height_px=224), CentreCrop(width_px=224, height_px=224)):
        with pytest.raises(BadRequest, match="224x224 does not fit the 320x180 frame"):
            crop.choose(320, 180, 0)


def test_three_views_are_left_centre_right_or_top_middle_bottom() -> None:
    wide = [ViewCrop(view=k).choose(512, 288, 0) for k in range(3)]
    assert [(b.x_px, b.y_px, b.width_px, b.height_px) for b in wide] == [(x, 0, 288, 288) for x in (0, 112, 224)]
    high = [ViewCrop(view=k).choose(288, 512, 0) for k in range(3)]
    assert [(b.x_px, b.y_px) for b in high] == [(0, y) for y in (0, 112, 224)]
    assert ViewCrop(view=0, views=1).choose(512, 288, 0) == ResizedCentreCrop().choose(512, 288, 0)


def test_the_whole_frame_loses_at_most_an_odd_row_and_column() -> None:
    assert WholeFrame().choose(513, 289, 0) == Box(x_px=0, y_px=0, width_px=512, height_px=288)


def test_a_letterbox_keeps_the_aspect() -> None:
    box = Letterbox().choose(512, 288, 0)
    assert Letterbox().place(box, 224, 224) == Box(x_px=0, y_px=48, width_px=224, height_px=126)
    assert Letterbox(centred=False).place(box, 224, 224) == Box(x_px=0, y_px=0, width_px=224, height_px=126)
    assert Letterbox().place(Box(x_px=0, y_px=0, width_px=288, height_px=512), 224, 224) == Box(
        x_px=48, y_px=0, width_px=126, height_px=224
    )
    assert Letterbox().place(box, 512, 288) == box


evens = st.integers(1, 1000).map(lambda half: 2 * half)


@given(sides, sides, evens, evens, st.booleans())
def test_a_letterbox_lies_in_the_picture_on_its_chroma_grid(
    frame_width_px: int, frame_height_px: int, width_px: int, height_px: int, centred: bool
) -> None:
    policy = Letterbox(centred=centred)
    box = policy.choose(frame_width_px, frame_height_px, 0)
    placed = policy.place(box, width_px, height_px)
    assert placed.x_px + placed.width_px <= width_px
    assert placed.y_px + placed.height_px <= height_px
    assert not (placed.x_px | placed.y_px | placed.width_px | placed.height_px) & 1
    assert placed.width_px >= width_px - 1 or placed.height_px >= height_px - 1
    ideal = min(width_px / box.width_px, height_px / box.height_px)
    assert abs(placed.width_px - max(box.width_px * ideal, 2)) <= 1.001
    assert abs(placed.height_px - max(box.height_px * ideal, 2)) <= 1.001


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiScaleCrop(shares=()), r"shares are \(\), wanted 1 to 16"),
        (lambda: MultiScaleCrop(shares=(1.0, 1.5)), "shares are"),
        (lambda: MultiScaleCrop(snap_px=-1), "snap_px is -1"),
        (lambda: RandomCrop(width_px=0, height_px=4), "width_px is 0, wanted an even number"),
        (lambda: CentreCrop(width_px=4, height_px=5), "height_px is 5, wanted an even number"),
        (lambda: ViewCrop(view=3), "view is 3 of 3"),
        (lambda: ViewCrop(view=0, ratio=0.0), "ratio is 0.0, wanted"),
    ],
)
def test_crops_out_of_bounds_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        make()
