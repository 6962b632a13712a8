"""Masks: their counts, their tubes, their seeds, and that no clip or cell is favoured."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framefeed.draws import clip_seed
from framefeed.errors import BadInput
from framefeed_models.videomae import split_mask
from trainer_client.training.augment.masking import CubeMask, MaskShape

PAPER = CubeMask(slots=8, cells=196, ratio=0.9)
SEEDS = [clip_seed(7, epoch=0, index=i) for i in range(64)]


def test_counts_are_the_papers() -> None:
    mask = PAPER.draw(SEEDS)
    assert mask.shape == (64, 1568)
    assert mask.dtype == np.bool_
    assert PAPER.masked_units == 176
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
    mask = CubeMask(slots=1, cells=16, ratio=0.75).draw(range(4000))
    assert (np.abs(mask.sum(axis=0) - 3000) < 137).all()


def test_cells_are_masked_independently() -> None:
    """Of pairs of cells, hypergeometric: P(both masked) = 12/16 · 11/15."""
    mask = CubeMask(slots=1, cells=16, ratio=0.75).draw(range(4000)).astype(float)
    together = (mask.T @ mask / 4000)[~np.eye(16, dtype=bool)]
    assert np.abs(together - 12 / 16 * 11 / 15).max() < 0.045


@pytest.mark.parametrize(
    ("ratio", "cells", "masked"), [(0.9, 196, 176), (0.75, 49, 36), (0.29, 100, 29), (0.7, 10, 7), (0.5, 3, 1)]
)
def test_masked_units_round_down_but_not_below_whole_products(ratio: float, cells: int, masked: int) -> None:
    assert CubeMask(slots=1, cells=cells, ratio=ratio).masked_units == masked


@given(
    slots=st.integers(1, 4),
    cells=st.integers(1, 40),
    share=st.floats(0.01, 0.99),
    shape=st.sampled_from(["tube", "random", "frame"]),
    seed=st.integers(0, 2**64 - 1),
)
def test_models_accept_every_mask(slots: int, cells: int, share: float, shape: MaskShape, seed: int) -> None:
    try:
        mask = CubeMask(slots=slots, cells=cells, ratio=share, shape=shape)
    except BadInput:
        units = {"tube": cells, "random": slots * cells, "frame": slots}[shape]
        assert int(share * units + 1e-9) in (0, units)
        return
    size = slots * cells // mask.units
    visible, masked = split_mask(torch.from_numpy(mask.draw([seed, seed ^ 1])))
    assert visible.shape == (2, size * (mask.units - mask.masked_units))
    assert masked.shape == (2, size * mask.masked_units)


@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9, 0.95])
def test_random_masks_have_no_tubes_and_frame_masks_have_nothing_else(ratio: float) -> None:
    tokens = CubeMask(slots=8, cells=196, ratio=ratio, shape="random").draw(SEEDS)
    assert (tokens.sum(axis=1) == int(ratio * 1568 + 1e-9)).all()
    slots = tokens.reshape(64, 8, 196)
    assert (slots != slots[:, :1]).any(axis=(1, 2)).all()
    frames = CubeMask(slots=8, cells=196, ratio=ratio, shape="frame").draw(SEEDS).reshape(64, 8, 196)
    assert (frames == frames[:, :, :1]).all()
    assert (frames[:, :, 0].sum(axis=1) == int(ratio * 8)).all()
    assert len({frame.tobytes() for frame in frames}) > 4


@pytest.mark.parametrize(
    ("slots", "cells", "ratio", "message"),
    [
        (0, 4, 0.5, "0 slots of 4 cells, wanted at least 2 tubes"),
        (1, 1, 0.5, "1 slots of 1 cells"),
        (1, 4, 0.0, "ratio is 0.0"),
        (1, 4, 1.0, "ratio is 1.0"),
        (1, 4, 0.1, "masks 0"),
    ],
)
def test_refuses_masks_that_hide_nothing_or_all(slots: int, cells: int, ratio: float, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        CubeMask(slots=slots, cells=cells, ratio=ratio)


def test_refuses_shapes_that_do_not_exist_and_frames_of_one_slot() -> None:
    with pytest.raises(BadInput, match="shape is 'cube', wanted one of"):
        CubeMask(slots=2, cells=4, shape="cube")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="frame mask: 1 slots of 4 cells, wanted at least 2 frames"):
        CubeMask(slots=1, cells=4, shape="frame")


def test_refuses_an_empty_batch() -> None:
    with pytest.raises(BadInput, match="no clip seeds"):
        PAPER.draw([])
