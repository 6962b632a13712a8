"""Position tables that are computed, not learned. They know token counts and widths, not what a token stands for.

Axes: N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WAVELENGTH_BASE = 10_000.0


def sincos_positions(n_tokens: int, *, width: int) -> Tensor:
    """The fixed sin-cos table over a flat sequence, float32 (N, D), as VideoMAE uses it over all tokens of a clip.

    table[n, 2i] = sin(n / 10000^(2i/D)), table[n, 2i+1] = cos(n / 10000^(2i/D)) (Vaswani et al. 2017, §3.5).
    The angles are computed in float64: at n = 1567 float32 angles would be off in the fourth decimal.
    Raises ValueError if there is no token or the width is not a positive even number.
    """
    if n_tokens < 1:
        raise ValueError(f"positions: n_tokens is {n_tokens}, wanted at least 1")
    if width < 2 or width % 2:
        raise ValueError(f"positions: width is {width}, wanted a positive even number")
    positions_N1 = torch.arange(n_tokens, dtype=torch.float64)[:, None]
    frequencies_D2 = _WAVELENGTH_BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles_ND2 = positions_N1 * frequencies_D2
    return torch.stack((angles_ND2.sin(), angles_ND2.cos()), dim=-1).flatten(1).float()
