"""Displayed boxes on coded samples: always even, inside, near what was asked for, and reported as what is cut."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_server.media.sample_grid import SampleGrid
from framefeed.crops import Box

SARS = [Fraction(1), Fraction(16, 11), Fraction(8, 9), Fraction(4, 3), Fraction(1, 2), Fraction(2)]
grids = st.builds(
    SampleGrid,
    width_px=st.integers(4, 800),
    height_px=st.integers(4, 800),
    sar=st.sampled_from(SARS),
    rotation_deg=st.sampled_from([0, 90, 180, 270]),
    mirrored=st.booleans(),
)


@given(grids, st.data())
def test_boxes_are_cut_on_the_chroma_grid_and_reported_as_cut(grid: SampleGrid, data: st.DataObject) -> None:
    width_px, height_px = grid.display_px
    x, y = data.draw(st.integers(0, width_px - 2)), data.draw(st.integers(0, height_px - 2))
    w, h = data.draw(st.integers(2, width_px - x)), data.draw(st.integers(2, height_px - y))
    asked = Box(x_px=x, y_px=y, width_px=w, height_px=h)
    coded = grid.coded_box(asked)
    assert not (coded.x_px | coded.y_px | coded.width_px | coded.height_px) & 1
    assert coded.x_px + coded.width_px <= grid.width_px
    assert coded.y_px + coded.height_px <= grid.height_px
    used = grid.snapped(asked)
    assert used.x_px + used.width_px <= width_px
    assert used.y_px + used.height_px <= height_px
    assert grid.coded_box(used) == coded
    assert grid.snapped(used) == used


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_the_samples_of_a_box_turned_forward_are_the_displayed_box(rotation_deg: int, mirrored: bool) -> None:
    coded = np.arange(12 * 20).reshape(12, 20)
    shown = np.rot90(coded, rotation_deg // 90)
    shown = shown[:, ::-1] if mirrored else shown
    grid = SampleGrid(width_px=20, height_px=12, rotation_deg=rotation_deg, mirrored=mirrored)
    assert grid.display_px == shown.shape[::-1]
    box = Box(x_px=2, y_px=4, width_px=6, height_px=8)
    b = grid.coded_box(box)
    cut = np.rot90(coded[b.y_px : b.y_px + b.height_px, b.x_px : b.x_px + b.width_px], rotation_deg // 90)
    assert np.array_equal(cut[:, ::-1] if mirrored else cut, shown[4:12, 2:8])
    assert grid.snapped(box) == box


def test_wide_pixels_are_stretched_in_width_and_narrow_ones_in_height() -> None:
    assert SampleGrid(width_px=720, height_px=576, sar=Fraction(16, 11)).display_px == (1047, 576)
    assert SampleGrid(width_px=720, height_px=480, sar=Fraction(8, 9)).display_px == (720, 540)
    assert SampleGrid(width_px=720, height_px=480, sar=Fraction(8, 9), rotation_deg=90).display_px == (540, 720)


def test_a_square_of_the_displayed_frame_is_a_narrow_box_of_wide_samples() -> None:
    grid = SampleGrid(width_px=320, height_px=240, sar=Fraction(2))
    box = Box(x_px=200, y_px=20, width_px=200, height_px=200)
    assert grid.coded_box(box) == Box(x_px=100, y_px=20, width_px=100, height_px=200)
    assert grid.snapped(box) == box


def test_an_odd_frame_upside_down_is_cut_one_row_and_column_off() -> None:
    grid = SampleGrid(width_px=255, height_px=143, rotation_deg=180)
    assert grid.snapped(Box(x_px=0, y_px=0, width_px=254, height_px=142)) == Box(
        x_px=1, y_px=1, width_px=254, height_px=142
    )
