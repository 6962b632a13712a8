"""`blur_in_place` as a kernel: along the rows of some clips into memory of its own, and along their columns back.

It knows widths, not who drew them; nothing waits for it. With TRITON_INTERPRET=1 it runs on a CPU.

Axes: B clips, M clips that are blurred, C channels, T frames, Y rows, X columns, K taps.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainer_client.training.augment.blur import PARTS

_PIXELS = 1024  # of a program


def gpu_blur(x_BCTYX: Tensor, rows_M: Tensor, taps_MK: Tensor) -> None:
    """Blur the clips of these numbers in place, each with its own taps; contiguous clips, all on one device."""
    clips, channels, frames, height, width = x_BCTYX.shape
    many, planes, reach = max(1, clips // PARTS), channels * frames, taps_MK.shape[1] // 2
    between = torch.empty((many, *x_BCTYX.shape[1:]), dtype=x_BCTYX.dtype, device=x_BCTYX.device)
    for first in range(0, len(rows_M), many):
        grid = (triton.cdiv(height * width, _PIXELS), min(many, len(rows_M) - first) * planes)
        for across in (True, False):
            _line_kernel[grid](
                *(x_BCTYX, between, rows_M, taps_MK),
                *(first, planes, height, width, taps_MK.shape[1], min(reach, (width if across else height) - 1)),
                ACROSS=across,
                BLOCK=_PIXELS,
            )


@triton.jit
def _line_kernel(
    x, between, rows, taps, first, planes, height, width, count, reach, ACROSS: tl.constexpr, BLOCK: tl.constexpr
):
    """Some pixels of a plane: sums over their row, or over their column; borders are mirrored."""
    number, plane = tl.program_id(1) // planes, tl.program_id(1) % planes
    area = height * width
    own = x + (tl.load(rows + first + number).to(tl.int64) * planes + plane) * area
    kept = between + (number.to(tl.int64) * planes + plane) * area
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = place < area
    middle = taps + (first + number) * count + count // 2
    total = tl.zeros((BLOCK,), tl.float32)
    for away in range(-reach, reach + 1):
        if ACROSS:
            at = tl.abs(place % width + away)
            at = tl.where(at >= width, 2 * width - 2 - at, at)
            value = tl.load(own + (place // width) * width + at, mask=live, other=0.0)
        else:
            at = tl.abs(place // width + away)
            at = tl.where(at >= height, 2 * height - 2 - at, at)
            value = tl.load(kept + at * width + place % width, mask=live, other=0.0)
        total += tl.load(middle + away) * value.to(tl.float32)
    if ACROSS:
        tl.store(kept + place, total.to(kept.dtype.element_ty), mask=live)
    else:
        tl.store(own + place, total.to(own.dtype.element_ty), mask=live)
