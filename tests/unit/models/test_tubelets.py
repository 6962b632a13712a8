"""Cutting clips into cubes: order, selection, and the way back, on clips whose every value is its own address."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from framefeed_models.tubelets import TubeletGrid, cut_cubes, join_cubes

GRID = TubeletGrid(frames=4, height_px=6, width_px=8, tubelet_frames=2, patch_px=2)


def addressed_clips(b: int = 2) -> Tensor:
    """Float64 clips (b, 3, 4, 6, 8) in which no value occurs twice."""
    return torch.arange(b * 3 * 4 * 6 * 8, dtype=torch.float64).reshape(b, 3, 4, 6, 8)


def test_grid_counts() -> None:
    assert (GRID.slots, GRID.rows, GRID.columns) == (2, 3, 4)
    assert (GRID.cells, GRID.tokens, GRID.cube_pixels) == (12, 24, 8)
    paper = TubeletGrid()
    assert (paper.slots, paper.cells, paper.tokens) == (8, 196, 1568)
    assert paper.cube_pixels * paper.channels == 1536


def test_cube_order_is_time_rows_columns_and_pixels_likewise() -> None:
    clips = addressed_clips()
    cubes = cut_cubes(clips, grid=GRID, selected_BS=None)
    assert cubes.shape == (2, 24, 8, 3)
    for t in range(4):
        for y in range(6):
            for x in range(8):
                cube = (t // 2) * 12 + (y // 2) * 4 + x // 2
                pixel = (t % 2) * 4 + (y % 2) * 2 + x % 2
                assert torch.equal(cubes[:, cube, pixel], clips[:, :, t, y, x])


def test_join_is_the_inverse_of_cut() -> None:
    clips = addressed_clips()
    assert torch.equal(join_cubes(cut_cubes(clips, grid=GRID, selected_BS=None), grid=GRID), clips)


def test_selected_cubes_are_those_of_the_full_cut() -> None:
    clips = addressed_clips()
    selected = torch.tensor([[0, 5, 23, 12], [7, 7, 1, 18]])
    cubes = cut_cubes(clips, grid=GRID, selected_BS=selected)
    everything = cut_cubes(clips, grid=GRID, selected_BS=None)
    for b in range(2):
        assert torch.equal(cubes[b], everything[b, selected[b]])


def test_cuts_clips_that_are_not_contiguous() -> None:
    clips = addressed_clips()
    channels_last = clips.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    assert not channels_last.is_contiguous()
    wanted = cut_cubes(clips, grid=GRID, selected_BS=None)
    assert torch.equal(cut_cubes(channels_last, grid=GRID, selected_BS=None), wanted)


@pytest.mark.parametrize(
    "sizes",
    [{"frames": 5}, {"height_px": 223}, {"width_px": 100}, {"patch_px": 0}, {"channels": -1}, {"tubelet_frames": 3}],
)
def test_grid_refuses_sizes_that_do_not_tile(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"tubelet grid: .* wanted"):
        TubeletGrid(**sizes)


@pytest.mark.parametrize("shape", [(2, 3, 4, 8, 6), (2, 4, 3, 6, 8), (3, 4, 6, 8), (2, 1, 4, 6, 8)])
def test_cut_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"clips are .* wanted \(B, 3, 4, 6, 8\)"):
        cut_cubes(torch.zeros(shape), grid=GRID, selected_BS=None)


def test_cut_refuses_bytes() -> None:
    with pytest.raises(ValueError, match="uint8"):
        cut_cubes(torch.zeros(1, 3, 4, 6, 8, dtype=torch.uint8), grid=GRID, selected_BS=None)


def test_join_refuses_a_part_of_the_cubes() -> None:
    with pytest.raises(ValueError, match=r"cubes are .* wanted \(B, 24, 8, 3\)"):
        join_cubes(torch.zeros(1, 23, 8, 3), grid=GRID)
