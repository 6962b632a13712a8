"""Augmentation as a batch meets it: drawn on the host ahead of time, done on the device; it knows no tasks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Protocol

from torch import Tensor

from framefeed.errors import BadInput
from trainer_client.feed.batch import Batch
from trainer_client.training.augment.blur import blur_in_place
from trainer_client.training.augment.draws import draw_augmentations
from trainer_client.training.augment.one_pass import Pass, one_pass
from trainer_client.training.augment.pixels import check_clips, colour_maps, map_yuv, normalise_codes
from trainer_client.training.augment.rule import AugmentOptions, ClipShape

TO_RGB = "to_rgb_B34"


class _GpuPass(Protocol):
    def __call__(self, pixels: Tensor, draws: Mapping[str, Tensor], seeds_B: Tensor, *, what: Pass) -> Tensor: ...


def host_draws(options: AugmentOptions, batch: Batch) -> dict[str, Tensor]:
    """What `augment_clips` needs of a batch beside its pixels, on the host. Raises as `draw_augmentations`."""
    frames, rows, columns = batch.pixels.shape[1:4]
    yuv = batch.pixels.ndim == 4
    draws = {}
    if options.any:
        shape = ClipShape(frames=frames, height_px=rows * 2 // 3 if yuv else rows, width_px=columns)
        draws = draw_augmentations(options, batch.seeds, shape)
    return draws | ({TO_RGB: colour_maps([info.colour for info in batch.infos])} if yuv else {})


def augment_clips(pixels: Tensor, draws: Mapping[str, Tensor], seeds_B: Tensor, *, what: Pass) -> Tensor:
    """Clips as Batch has them to normalised ones, (B, C, T, Y, X), by the draws of `host_draws` on the same device.

    On a GPU one kernel, and one for what is blurred, on a CPU torch's operations. Chroma lies half way between pixels,
    libswscale's siting and so that of every clip which a server has scaled. Waits for nothing.
    Raises BadInput on a GPU without Triton, and for clips that are none.
    """
    yuv = pixels.ndim == 4
    check_clips(pixels, yuv=yuv)
    if pixels.device.type == "cuda":
        return _gpu_pass()(pixels, draws, seeds_B, what=what)
    if draws.keys() <= {TO_RGB}:  # plane by plane takes a third of the time that pixel by pixel does
        codes = map_yuv(pixels, draws[TO_RGB], siting="center") if yuv else pixels.permute(0, 4, 1, 2, 3).float()
        x_BCTYX = normalise_codes(codes, what.norm).to(what.dtype).contiguous()
    else:
        x_BCTYX = one_pass(pixels, draws, seeds_B, what=what)
    if "blur_rows_M" in draws:
        blur_in_place(x_BCTYX, draws["blur_rows_M"], draws["blur_taps_MK"])
    return x_BCTYX


@lru_cache(maxsize=1)
def _gpu_pass() -> _GpuPass:
    try:
        found: _GpuPass = import_module("trainer_client.training.augment.gpu_pass").gpu_pass
    except ModuleNotFoundError as error:
        raise BadInput(f"augment: {error.name} is not there, wanted Triton, as torch's CUDA build brings it") from None
    return found
