"""Batches on the device that trains; knows pixels and seeds, not tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.pixel_norm import PixelNorm
from trainer_client.feed.batch import Batch
from trainer_client.training.augment.pixels import normalise_rgb, normalise_yuv


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceBatch:
    """A batch and, on the device, its `pixels` as in Batch and its seeds as int64 of the same bits.

    Holds the batch, and so the memory that an asynchronous copy may still be reading.
    """

    batch: Batch
    pixels: Tensor
    seeds_B: Tensor

    def normalised(self, norm: PixelNorm) -> Tensor:
        """The clips as float32 (B, C, T, Y, X) on the device."""
        if self.pixels.ndim == 5:
            return normalise_rgb(self.pixels, norm=norm)
        # "center": libswscale's siting, so that of every clip which a server has scaled.
        colours = [info.colour for info in self.batch.infos]
        return normalise_yuv(self.pixels, colours=colours, siting="center", norm=norm)


def to_device(batch: Batch, device: torch.device) -> DeviceBatch:
    """Begin to copy a batch; from pinned memory the copy is asynchronous."""
    pixels, seeds_B = torch.from_numpy(batch.pixels), torch.from_numpy(batch.seeds.view(np.int64))
    return DeviceBatch(
        batch=batch,
        pixels=pixels.to(device, non_blocking=True),
        seeds_B=seeds_B.to(device, non_blocking=True),
    )
