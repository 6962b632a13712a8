"""The forms in which others keep the same weights: kernels, fused or split projections, tables with a first row.

It knows shapes, no names and no model. Each form is a bijection: `give(take(x))` is x.

Axes: D width, C channels, G cells of a frame, y and x pixels of a patch, t frames of a cube.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import torch
from torch import Tensor

from framefeed_models.tubelets import TubeletGrid
from framefeed_models.weights.key_table import Form, Rule

SAME = Form(take=lambda x: (x,), give=lambda x: (x,))
TRANSPOSED = Form(take=lambda x: (x.transpose(0, 1),), give=lambda x: (x.transpose(0, 1),))
# A number, which ours keeps with a dimension: FSDP2 divides no parameter without one.
NUMBER = Form(take=lambda x: (x.reshape(1),), give=lambda x: (x.reshape(()),))
# Class token and cells in one table (1 + G, D), as CLIP has them, and with a leading axis of 1, as LaViLa has.
CLASS_ROW = Form(take=lambda x: (x[0], x[1:]), give=lambda row, rest: (torch.cat((row[None], rest)),))
CLASS_ROW_IN_BATCH = Form(
    take=lambda x: (x[0, 0], x[0, 1:]), give=lambda row, rest: (torch.cat((row[None], rest))[None],)
)
# One projection for queries, keys and values, or one for each.
FUSED_QKV = Form(take=lambda q, k, v: (torch.cat((q, k, v)),), give=lambda qkv: qkv.chunk(3))
# VideoMAE has no bias on keys. Softmax cancels ours, whatever it is: it adds the same to all logits of a query.
QV_BIAS = Form(
    take=lambda q, v: (torch.cat((q, torch.zeros_like(q), v)),), give=lambda qkv: (qkv.chunk(3)[0], qkv.chunk(3)[2])
)


def in_batch(axes: int) -> Form:
    """Theirs has `axes` leading axes of length 1, which ours has not."""

    def take(x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[:axes] != (1,) * axes:
            _refuse(f"wanted {axes} leading axes of length 1")
        return (x.reshape(x.shape[axes:]),)

    return Form(take=take, give=lambda x: (x.reshape(*(1,) * axes, *x.shape),))


def kernel(grid: TubeletGrid, *, over_time: bool) -> Form:
    """A strided convolution's kernel, (D, C, y, x) or, over time, (D, C, t, y, x), as a Linear over a cube's values.

    Our cubes have pixels first and channels last. A kernel of images on cubes of t frames is inflated: every frame has
    1/t of it, so that a still clip gives what the image gave (Carreira & Zisserman 2017, §3.2).
    """
    channels, patch, frames = grid.channels, grid.patch_px, grid.tubelet_frames

    def take(kernel: Tensor) -> tuple[Tensor, ...]:
        wanted = (channels, frames, patch, patch) if over_time else (channels, patch, patch)
        if kernel.shape[1:] != wanted:
            _refuse(f"wanted (D, {', '.join(map(str, wanted))})")
        if not over_time:
            kernel = (kernel / frames)[:, :, None].expand(-1, -1, frames, -1, -1)
        return (kernel.movedim(1, -1).flatten(1),)

    def give(weight: Tensor) -> tuple[Tensor, ...]:
        kernel_DCtyx = weight.reshape(-1, frames, patch, patch, channels).movedim(-1, 1)
        if over_time:
            return (kernel_DCtyx,)
        if not torch.equal(kernel_DCtyx, kernel_DCtyx[:, :, :1].expand_as(kernel_DCtyx)):
            _refuse("the frames of a cube have different kernels: images have one")
        return (kernel_DCtyx[:, :, 0] * frames,)

    return Form(take=take, give=give)


def flat_kernel(grid: TubeletGrid) -> Form:
    """A Linear over (channel, y, x), AVION's fast first layer, as one over a cube's pixels, then channels."""
    shape = (grid.channels, grid.patch_px, grid.patch_px)
    over = kernel(grid, over_time=False)
    return Form(
        take=lambda weight: over.take(weight.reshape(-1, *shape)),
        give=lambda weight: (over.give(weight)[0].flatten(1),),
    )


def zeros(*shape: int) -> Form:
    """Nothing of theirs, zeros of ours; on the way back ours has to be zero still."""

    def give(x: Tensor) -> tuple[Tensor, ...]:
        if x.any():
            _refuse("it is not zero, and theirs has no place for it")
        return ()

    return Form(take=lambda: (torch.zeros(shape),), give=give)


def rename(
    pairs: Mapping[str, str], *, theirs: str = "", ours: str = "", kinds: tuple[str, ...] = ("weight", "bias")
) -> list[Rule]:
    """A rule for weight and bias of each module, their name to ours, behind these prefixes."""
    return [
        Rule(theirs=(f"{theirs}{a}.{kind}",), ours=(f"{ours}{b}.{kind}",), form=SAME)
        for a, b in pairs.items()
        for kind in kinds
    ]


def one(theirs: str, ours: str, form: Form = SAME) -> Rule:
    """A rule for one tensor."""
    return Rule(theirs=(theirs,), ours=(ours,), form=form)


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)
