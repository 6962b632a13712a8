"""How much moves in clips and how much there is to see in them, by plain measures of their pixels; knows no model.

Both are of luma (ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B, of 0 to 1) averaged over square cells, so that noise and
the size of the clip count for little: a cell is as many pixels wide as the short side has whole 64ths, at least one.

Axes: B clips, T frames, Y rows, X columns, y and x rows and columns of cells.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

CONTENT = ("motion_intensity", "scene_complexity")
_LUMA = (0.299, 0.587, 0.114)
_CELLS = 64


def measure_content(pixels_BTYX3: Tensor) -> Tensor:
    """float32 (B, 2), in the order of CONTENT, of uint8 RGB clips (B, T, Y, X, 3), on their device; waits for nothing.

    motion_intensity: the mean over cells and pairs of neighbouring frames of |difference of luma|, 0 to 1; 0 for one
    frame. It is a step from frame to frame of the clip, so compare clips of one frame distance.
    scene_complexity: the spatial information of ITU-T P.910 (2008, §5.3.1), the standard deviation over cells of the
    magnitude of Sobel's gradient, its mean over frames in the place of the maximum.
    """
    luma_BTyx = _luma(pixels_BTYX3)
    moved = luma_BTyx.diff(dim=1).abs()
    motion_B = moved.mean(dim=(1, 2, 3)) if moved.shape[1] else luma_BTyx.new_zeros(len(luma_BTyx))
    return torch.stack((motion_B, _gradient(luma_BTyx).flatten(2).std(dim=2, correction=0).mean(dim=1)), dim=1)


def _luma(pixels_BTYX3: Tensor) -> Tensor:
    """Luma of cells, float32 (B, T, y, x); rows and columns beyond the last whole cell are left out."""
    weights = torch.tensor(_LUMA, device=pixels_BTYX3.device) / 255.0
    luma_BTYX = pixels_BTYX3.float() @ weights
    cell_px = max(min(luma_BTYX.shape[2:]) // _CELLS, 1)
    return luma_BTYX if cell_px == 1 else avg_pool2d(luma_BTYX, cell_px)


def _gradient(luma_BTyx: Tensor) -> Tensor:
    """|Sobel's gradient| inside the border, (B, T, y - 2, x - 2); of fewer than 3 rows or columns a single 0."""
    if min(luma_BTyx.shape[2:]) < 3:
        return luma_BTyx.new_zeros(*luma_BTyx.shape[:2], 1, 1)
    smooth_y = luma_BTyx[:, :, :-2] + 2 * luma_BTyx[:, :, 1:-1] + luma_BTyx[:, :, 2:]
    smooth_x = luma_BTyx[..., :-2] + 2 * luma_BTyx[..., 1:-1] + luma_BTyx[..., 2:]
    across = smooth_y[..., 2:] - smooth_y[..., :-2]
    down = smooth_x[:, :, 2:] - smooth_x[:, :, :-2]
    return torch.hypot(across, down)
