"""Either kind of video encoder, from its configuration; what uses one need not know which.

Both have `forward(clips, pooled=…, seeds_B=…)`, clips to normed tokens or to one feature each.
"""

from __future__ import annotations

from models.timesformer import TimeSformer, TimeSformerConfig
from models.vit import VideoViT, ViTConfig

EncoderConfig = ViTConfig | TimeSformerConfig
Encoder = VideoViT | TimeSformer


def make_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that a configuration describes, with fresh weights."""
    return TimeSformer(config) if isinstance(config, TimeSformerConfig) else VideoViT(config)
