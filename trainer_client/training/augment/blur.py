"""Gaussian blur of some clips of a batch, in place; it knows widths, not who drew them.

A second pass, over the clips that are blurred alone: a few at a time, so that it needs little memory.

Axes: B clips, M clips that are blurred, C channels, T frames, Y rows, X columns, K taps.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

PARTS = 16
"""A batch is blurred in so many parts: what is being blurred takes a sixteenth of its memory, on a CPU three times."""


def blur_taps(widths_px: npt.NDArray[np.float64], *, widest_px: float) -> npt.NDArray[np.float32]:
    """Taps of each standard deviation, (M, K), of sum 1: so many that the widest has three of it each way."""
    reach = max(1, math.ceil(3 * widest_px))
    at_K = np.arange(-reach, reach + 1)
    taps_MK = np.exp(-0.5 * (at_K / widths_px[:, None]) ** 2)
    shares_MK: npt.NDArray[np.float32] = (taps_MK / taps_MK.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares_MK


def blur_in_place(x_BCTYX: Tensor, rows_M: Tensor, taps_MK: Tensor) -> None:
    """Blur the clips of these numbers, each with its own taps; all on one device, which nothing here waits for.

    Borders are mirrored without repeating the outermost pixel, as torchvision's.
    """
    many = max(1, len(x_BCTYX) // PARTS)
    for some_M, taps in zip(torch.split(rows_M, many), torch.split(taps_MK, many), strict=True):
        x_BCTYX.index_copy_(0, some_M, _blurred(x_BCTYX.index_select(0, some_M), taps.to(x_BCTYX.dtype)))


def _blurred(x_MCTYX: Tensor, taps_MK: Tensor) -> Tensor:
    """One convolution for rows and one for columns, each plane with its clip's taps."""
    planes = x_MCTYX[0, :, :, 0, 0].numel()
    across, taps_PK = x_MCTYX.flatten(0, 2)[None], taps_MK.repeat_interleave(planes, dim=0)
    reach = taps_MK.shape[1] // 2
    for axis, side in ((3, x_MCTYX.shape[4]), (2, x_MCTYX.shape[3])):
        out = min(reach, side - 1)  # more cannot be mirrored: the taps beyond are cut off
        taps_PK11 = taps_PK[:, reach - out : reach + out + 1].view(len(taps_PK), 1, 1, -1)
        kernel = taps_PK11 if axis == 3 else taps_PK11.transpose(2, 3)
        borders = (out, out, 0, 0) if axis == 3 else (0, 0, out, out)
        across = conv2d(pad(across, borders, mode="reflect"), kernel, groups=len(taps_PK))
    return across.view_as(x_MCTYX)
