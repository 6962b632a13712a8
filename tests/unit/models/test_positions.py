"""The sin-cos table against its equation, one entry at a time."""

from __future__ import annotations

import math

import pytest
import torch

from models.positions import sincos_positions


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
