"""The sin-cos table against its equation, one entry at a time."""

from __future__ import annotations

import math

import pytest
import torch

from models.positions import grid_positions, sincos_positions


def test_equals_the_equation_entry_by_entry() -> None:
    table = sincos_positions(9, width=12)
    assert table.shape == (9, 12)
    assert table.dtype == torch.float32
    for n in range(9):
        for d in range(12):
            angle = n / 10_000 ** (2 * (d // 2) / 12)
            wanted = math.cos(angle) if d % 2 else math.sin(angle)
            assert table[n, d].item() == pytest.approx(wanted, abs=1e-7)


def test_is_exact_far_out_where_float32_angles_are_not() -> None:
    table = sincos_positions(1568, width=768)
    angle = 1567 / 10_000 ** (2 * 3 / 768)
    assert table[1567, 6].item() == pytest.approx(math.sin(angle), abs=6e-8)


def test_tells_all_tokens_apart() -> None:
    table = sincos_positions(1568, width=384)
    distances = torch.cdist(table, table) + torch.eye(1568) * 10
    assert distances.min() > 0.1


def test_a_longer_table_begins_with_the_shorter_one() -> None:
    assert torch.equal(sincos_positions(20, width=8)[:7], sincos_positions(7, width=8))


@pytest.mark.parametrize(("n_tokens", "width"), [(0, 8), (4, 7), (4, 0)])
def test_refuses_no_tokens_and_odd_widths(n_tokens: int, width: int) -> None:
    with pytest.raises(ValueError, match=r"positions: (n_tokens|width) is"):
        sincos_positions(n_tokens, width=width)


def test_a_grid_gives_each_axis_channels_of_its_own() -> None:
    table = grid_positions((2, 3, 5), width=32)
    assert table.shape == (30, 32)
    assert table.dtype == torch.float32
    for slot in range(2):
        for row in range(3):
            for column in range(5):
                entry = table[(slot * 3 + row) * 5 + column]
                for at, first, width in ((slot, 0, 8), (row, 8, 12), (column, 20, 12)):
                    for d in range(width):
                        angle = at / 20 ** (2 * (d // 2) / width)
                        wanted = 4 * (math.cos(angle) if d % 2 else math.sin(angle))
                        assert entry[first + d].item() == pytest.approx(wanted, abs=1e-6)


def test_on_a_grid_neighbours_along_any_axis_are_the_nearest() -> None:
    table = grid_positions((4, 8, 8), width=64).view(4, 8, 8, 64)
    here = table[1, 4, 4]
    far = (table[1, 4, 6], table[1, 6, 4], table[3, 4, 4], table[1, 0, 0])
    for near in (table[1, 4, 5], table[1, 5, 4], table[2, 4, 4]):
        assert all((near - here).norm() < (other - here).norm() for other in far)


@pytest.mark.parametrize(("shape", "width"), [((0, 8, 8), 16), ((4, 8, 8), 24), ((4, 8, 8), 0)])
def test_a_grid_refuses_empty_axes_and_widths_that_do_not_divide(shape: tuple[int, int, int], width: int) -> None:
    with pytest.raises(ValueError, match=r"positions: (grid|width) is"):
        grid_positions(shape, width=width)
