"""Either kind of video encoder, from its configuration; what uses one need not know which.

Both have `forward(clips, pooled=…, seeds_B=…)`, clips to normed tokens or to one feature each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framefeed_models.timesformer import TimeSformer, TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.vit import VideoViT, ViTConfig

EncoderConfig = ViTConfig | TimeSformerConfig
Encoder = VideoViT | TimeSformer


def make_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that a configuration describes, with fresh weights."""
    return TimeSformer(config) if isinstance(config, TimeSformerConfig) else VideoViT(config)


def feature_of(
    encoder: Encoder, x_BCTYX: Tensor, *, seeds_B: Tensor | None, frames_B: Sequence[int] | None = None
) -> Tensor:
    """One feature (B, D) of each clip. `frames_B` is how many of its frames are of the video, where others are padding:
    cubes without any are neither attended to nor pooled, and cost nothing behind the embedding.

    Raises ValueError for clips that do not fit, and for padded ones of a TimeSformer.
    """
    padded: dict[str, Tensor] = {}
    if frames_B is not None:
        if isinstance(encoder, TimeSformer):
            raise ValueError(
                "TimeSformer: got padded clips, wanted whole ones: its attention over time is of all frames"
            )
        padded["valid_BN"] = valid_cubes(frames_B, encoder.embedding.grid_of(x_BCTYX))
    feature_BD: Tensor = encoder(x_BCTYX, pooled=True, seeds_B=seeds_B, **padded)
    return feature_BD


def valid_cubes(frames_B: Sequence[int], grid: TubeletGrid) -> Tensor:
    """Which cubes have a frame of the video in them, bool (B, N) on the host."""
    slots_B1 = (torch.tensor(frames_B)[:, None] + grid.tubelet_frames - 1) // grid.tubelet_frames
    return (torch.arange(grid.slots) < slots_B1).repeat_interleave(grid.cells, dim=1)
