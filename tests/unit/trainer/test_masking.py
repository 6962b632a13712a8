"""Tube masks: their counts, their tubes, their seeds, and that no clip or cell is favoured."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framefeed.draws import clip_seed
from framefeed.errors import BadInput
from models.videomae import split_mask
from trainer_client.masking import TubeMask

PAPER = TubeMask(slots=8, cells=196, ratio=0.9)
SEEDS = [clip_seed(7, epoch=0, index=i) for i in range(64)]


def test_counts_are_the_papers() -> None:
    mask = PAPER.draw(SEEDS)
    assert mask.shape == (64, 1568)
    assert mask.dtype == np.bool_
    assert PAPER.masked_cells == 176
    assert (mask.sum(axis=1) == 1408).all()


def test_every_slot_has_the_same_mask() -> None:
    tubes = PAPER.draw(SEEDS).reshape(64, 8, 196)
    assert (tubes == tubes[:, :1]).all()


def test_a_mask_depends_on_its_own_seed_only() -> None:
    whole = PAPER.draw(SEEDS)
    assert (PAPER.draw(SEEDS[10:12]) == whole[10:12]).all()
    assert (PAPER.draw(SEEDS[::-1]) == whole[::-1]).all()
    assert len({row.tobytes() for row in whole}) == 64


def test_masks_are_the_same_on_every_machine_and_version() -> None:
    """A pinned digest: a change of the draws would change every run that is resumed or reproduced."""
    packed = np.packbits(PAPER.draw([0, 1, 2**63, 2**64 - 1])).tobytes()
    assert hashlib.sha256(packed).hexdigest()[:16] == "af4d2c506f15de20"


def test_cells_are_masked_equally_often() -> None:
    """Binomial(4000, 0.75) per cell has a deviation of 27: five of them on either side of 3000."""
    mask = TubeMask(slots=1, cells=16, ratio=0.75).draw(range(4000))
    assert (np.abs(mask.sum(axis=0) - 3000) < 137).all()


def test_cells_are_masked_independently() -> None:
    """Of pairs of cells, hypergeometric: P(both masked) = 12/16 · 11/15."""
    mask = TubeMask(slots=1, cells=16, ratio=0.75).draw(range(4000)).astype(float)
    together = (mask.T @ mask / 4000)[~np.eye(16, dtype=bool)]
    assert np.abs(together - 12 / 16 * 11 / 15).max() < 0.045


@pytest.mark.parametrize(
    ("ratio", "cells", "masked"), [(0.9, 196, 176), (0.75, 49, 36), (0.29, 100, 29), (0.7, 10, 7), (0.5, 3, 1)]
)
def test_masked_cells_round_down_but_not_below_whole_products(ratio: float, cells: int, masked: int) -> None:
    assert TubeMask(slots=1, cells=cells, ratio=ratio).masked_cells == masked


@given(slots=st.integers(1, 4), cells=st.integers(2, 40), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**64 - 1))
def test_models_accept_every_mask(slots: int, cells: int, share: float, seed: int) -> None:
    try:
        tubes = TubeMask(slots=slots, cells=cells, ratio=share)
    except BadInput:
        assert int(share * cells + 1e-9) in (0, cells)
        return
    visible, masked = split_mask(torch.from_numpy(tubes.draw([seed, seed ^ 1])))
    assert visible.shape == (2, slots * (cells - tubes.masked_cells))
    assert masked.shape == (2, slots * tubes.masked_cells)


@pytest.mark.parametrize(
    ("slots", "cells", "ratio", "message"),
    [
        (0, 4, 0.5, "0 slots of 4 cells"),
        (1, 1, 0.5, "1 slots of 1 cells"),
        (1, 4, 0.0, "ratio is 0.0"),
        (1, 4, 1.0, "ratio is 1.0"),
        (1, 4, 0.1, "masks 0"),
    ],
)
def test_refuses_masks_that_hide_nothing_or_all(slots: int, cells: int, ratio: float, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        TubeMask(slots=slots, cells=cells, ratio=ratio)


def test_refuses_an_empty_batch() -> None:
    with pytest.raises(BadInput, match="no clip seeds"):
        PAPER.draw([])
