"""The sin-cos table against its equation, one entry at a time."""

from __future__ import annotations

import math

import pytest
import torch

from framefeed_models.positions import grid_positions, resize_cells, resize_slots, sincos_positions


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


def test_slots_are_interpolated_as_spans_of_time() -> None:
    """4 slots to 8, by hand: a slot is a span, so new ones lie at ±1/4 of an old one; the ends hold."""
    table = torch.tensor([[0.0], [4.0], [8.0], [4.0]])
    wanted = torch.tensor([0.0, 1.0, 3.0, 5.0, 7.0, 7.0, 5.0, 4.0])
    torch.testing.assert_close(resize_slots(table, slots=8).flatten(), wanted)
    assert resize_slots(table, slots=4) is table


def test_four_frames_become_sixteen_and_back() -> None:
    """AVION's 4 → 16; back again keeps what a smooth table says."""
    table = torch.linspace(-1, 1, 4)[:, None] * torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    longer = resize_slots(table, slots=16)
    assert longer.shape == (16, 6)
    torch.testing.assert_close(resize_slots(longer, slots=4)[1:3], table[1:3], atol=0.05, rtol=0)


def test_cells_are_interpolated_by_cubics_along_rows_and_columns() -> None:
    """By hand between two cells, with torch's a = -0.75; what changes along one axis only still does."""
    rows, columns = torch.meshgrid(torch.randn(8), torch.zeros(6), indexing="ij")
    seen = resize_cells((rows + columns).reshape(-1, 1), source=(8, 6), target=(16, 12)).view(16, 12)
    torch.testing.assert_close(seen, seen[:, :1].expand(-1, 12))
    a, near, far = -0.75, 0.25, 0.75  # new row 8 lies at 3.75: a quarter before old row 4
    weights = {
        2: a * (1 + far) ** 3 - 5 * a * (1 + far) ** 2 + 8 * a * (1 + far) - 4 * a,
        3: (a + 2) * far**3 - (a + 3) * far**2 + 1,
        4: (a + 2) * near**3 - (a + 3) * near**2 + 1,
        5: a * (1 + near) ** 3 - 5 * a * (1 + near) ** 2 + 8 * a * (1 + near) - 4 * a,
    }
    wanted = sum(weight * float(rows[row, 0]) for row, weight in weights.items())
    assert seen[8, 0].item() == pytest.approx(wanted, abs=1e-5)
    turned = resize_cells((rows + columns).T.reshape(-1, 1), source=(6, 8), target=(12, 16)).view(12, 16)
    torch.testing.assert_close(turned.T, seen)
    table = rows.reshape(-1, 1)
    assert resize_cells(table, source=(8, 6), target=(8, 6)) is table


def test_resized_tables_keep_their_dtype() -> None:
    table = torch.randn(4, 6, dtype=torch.bfloat16)
    assert resize_slots(table, slots=3).dtype == torch.bfloat16
    assert resize_cells(table, source=(2, 2), target=(3, 5)).shape == (15, 6)
    assert resize_cells(table, source=(2, 2), target=(3, 5)).dtype == torch.bfloat16


def test_resizing_refuses_tables_of_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"table is \(4, 6\), wanted \(2 x 3, D\)"):
        resize_cells(torch.zeros(4, 6), source=(2, 3), target=(4, 6))
    with pytest.raises(ValueError, match="for 0 slots"):
        resize_slots(torch.zeros(4, 6), slots=0)
