"""Which key table is for a checkpoint of some source and a model of ours. It knows names and shapes, no files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from framefeed_models.classifier import ClassifierConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.avion import avion_table
from framefeed_models.weights.clip import clip_table
from framefeed_models.weights.config_json import ModelConfig
from framefeed_models.weights.key_table import KeyTable, Weights
from framefeed_models.weights.lavila import lavila_table
from framefeed_models.weights.transformers_clip import POSITION_NUMBERS, transformers_clip_table
from framefeed_models.weights.transformers_videomae import transformers_table
from framefeed_models.weights.videomae import AnyVideoMAE, videomae_table

Source = Literal["clip", "avion", "lavila", "videomae", "transformers"]
_DECODER = ("decoder.", "encoder_to_decoder.", "mask_token")


def choose_table(config: ModelConfig, theirs: Weights, *, source: Source) -> KeyTable:
    """The table for a checkpoint of this source: its variant is told by its names and by the first layer's shape.

    Raises ValueError for a model that such weights are not for.
    """
    makers: dict[Source, Callable[[], KeyTable | None]] = {
        "clip": lambda: _clip(config, theirs),
        "avion": lambda: _avion(config, theirs),
        "lavila": lambda: lavila_table(config) if isinstance(config, DualEncoderConfig | ClassifierConfig) else None,
        "videomae": lambda: _videomae(config, theirs),
        "transformers": lambda: _transformers(config, theirs),
    }
    if source not in makers:
        raise ValueError(f"weights: source is {source!r}, wanted one of {', '.join(makers)}")
    table = makers[source]()
    if table is None:
        raise ValueError(f"weights: source {source} has no {type(config).__name__.removesuffix('Config')}")
    return table


def _clip(config: ModelConfig, theirs: Weights) -> KeyTable | None:
    if not isinstance(config, DualEncoderConfig):
        return None
    projection = theirs.get("text_projection")
    return clip_table(config, projections=projection is None or projection.shape[-1] == config.joint)


def _avion(config: ModelConfig, theirs: Weights) -> KeyTable | None:
    if not isinstance(config, DualEncoderConfig | ClassifierConfig):
        return None
    patches = theirs.get("visual.conv1.weight")
    return avion_table(
        config,
        flash=any(".attn.Wqkv." in name for name in theirs),
        fast_patches=patches is not None and patches.ndim == 2,
    )


def _videomae(config: ModelConfig, theirs: Weights) -> KeyTable | None:
    if not isinstance(config, AnyVideoMAE):
        return None
    table = videomae_table(config, flash=any(".attn.Wqkv." in name for name in theirs))
    return table.leaving(theirs, prefixes=_DECODER) if isinstance(config, ViTConfig) else table


def _transformers(config: ModelConfig, theirs: Weights) -> KeyTable | None:
    if isinstance(config, DualEncoderConfig):
        return transformers_clip_table(config).leaving(theirs, prefixes=POSITION_NUMBERS)
    return transformers_table(config) if isinstance(config, AnyVideoMAE) else None
