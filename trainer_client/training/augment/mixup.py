"""Mixup and CutMix of neighbouring clips; knows seeds and pixels, not labels.

Axes: B clips, C channels, T frames, Y rows, X columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from framefeed.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mix:
    """How the clips of a batch are mixed: a clip keeps `kept_B` of itself, the rest is its neighbour.

    `box_B4`: left, top, right, bottom of what CutMix takes of the neighbour, in pixels; an empty box is mixup.
    """

    kept_B: Tensor
    box_B4: Tensor

    def apply(self, x_BCTYX: Tensor) -> Tensor:
        """Mix clips on the device of its tensors, in place, a sixteenth of them at a time; the same clips.

        A box goes through all frames, on rows and columns.
        """
        rows, columns = (torch.arange(length, device=x_BCTYX.device) for length in x_BCTYX.shape[-2:])
        left, top, right, bottom = (edge[:, None] for edge in self.box_B4.unbind(1))
        inside_BYX = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None]
        cut_B11 = ((right > left) & (bottom > top))[:, :, None]
        own_BYX = torch.where(cut_B11, (~inside_BYX).float(), self.kept_B[:, None, None])
        many = max(2, len(x_BCTYX) // 32 * 2)
        for some, own in zip(x_BCTYX.split(many), own_BYX[:, None, None].split(many), strict=True):
            share = own.to(some.dtype)
            some.copy_(some * share + swap(some) * (1 - share))
        return x_BCTYX


@dataclass(frozen=True, slots=True, kw_only=True)
class MixRule:
    """Mixup (Zhang et al. 2018) with Beta(α, α), or CutMix (Yun et al. 2019), one of them at random, as AVION does.

    A clip's partner is its neighbour in the plan, 2k and 2k + 1, so that it is in the same batch whatever the number of
    ranks; the plan's order is random. Both draw from the first one's seed (AVION draws once for a whole batch, and cuts
    frames in the place of rows, which is taken to be a mistake). Raises BadInput for values that make no rule.
    """

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    cutmix_share: float = 0.5

    def __post_init__(self) -> None:
        if not (self.mixup_alpha > 0 and self.cutmix_alpha > 0 and 0 <= self.cutmix_share <= 1):
            raise BadInput(f"mixup: got {self}, wanted both alphas > 0 and 0 <= cutmix_share <= 1")

    def draw(self, seeds: Sequence[int], *, height_px: int, width_px: int, first_position: int) -> Mix:
        """The mix of clips with these 64-bit seeds, on the host. Raises BadInput where neighbours are torn apart."""
        if len(seeds) % 2 or first_position % 2:
            raise BadInput(f"mixup: a rank's batch has {len(seeds)} clips, wanted an even number")
        kept, boxes = list[float](), list[tuple[int, int, int, int]]()
        for seed in seeds[::2]:
            share, box = self._draw_pair(seed, height_px=height_px, width_px=width_px)
            kept += [share, share]
            boxes += [box, box]
        return Mix(kept_B=torch.tensor(kept), box_B4=torch.tensor(boxes))

    def _draw_pair(self, seed: int, *, height_px: int, width_px: int) -> tuple[float, tuple[int, int, int, int]]:
        random = np.random.Generator(np.random.Philox(key=seed))
        if random.random() >= self.cutmix_share:
            return float(random.beta(self.mixup_alpha, self.mixup_alpha)), (0, 0, 0, 0)
        side = math.sqrt(1.0 - random.beta(self.cutmix_alpha, self.cutmix_alpha))
        height, width = int(height_px * side), int(width_px * side)
        y, x = int(random.integers(height_px)), int(random.integers(width_px))
        left, right = max(x - width // 2, 0), min(x + width // 2, width_px)
        top, bottom = max(y - height // 2, 0), min(y + height // 2, height_px)
        return 1.0 - (right - left) * (bottom - top) / (height_px * width_px), (left, top, right, bottom)


def swap(values: Tensor) -> Tensor:
    """Each clip's neighbour's value, along the first axis."""
    return values.view(-1, 2, *values.shape[1:]).flip(1).flatten(0, 1)
