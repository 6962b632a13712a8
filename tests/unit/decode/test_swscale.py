"""Planes into pixels: exact, for every width, and into a rectangle of a larger picture without touching the rest."""

from __future__ import annotations

import numpy as np
import pytest

from decode_server.clips.swscale import Scaler

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("height_px", "width_px"), [(2, 2), (4, 6), (30, 34), (112, 112), (224, 224), (98, 518)])
def test_interleaving_is_exact(height_px: int, width_px: int) -> None:
    red, green, blue = RNG.integers(0, 256, (3, height_px, width_px), dtype=np.uint8)
    out = np.full((height_px + 4, width_px + 6, 3), 7, np.uint8)
    scaler = Scaler()
    scaler.interleave([green, blue, red], out[2:-2, 4:-2])
    scaler.close()
    assert np.array_equal(out[2:-2, 4:-2], np.stack([red, green, blue], axis=-1))
    out[2:-2, 4:-2] = 7
    assert (out == 7).all(), "nothing around it was written"
