"""Weights of others into a model of ours: from which kind of file, by which table, fitted to the model's clips.

It knows kinds of checkpoints and models of ours, no training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from models.classifier import ClassifierConfig
from models.dual_encoder import DualEncoderConfig
from models.embedding import fit_positions
from models.tubelets import TubeletGrid
from models.vit import ViTConfig
from models.weights.avion import avion_table
from models.weights.clip import clip_table
from models.weights.config_json import ModelConfig
from models.weights.files import read_weights
from models.weights.key_table import KeyTable, Weights, fill_model, import_weights
from models.weights.lavila import lavila_table
from models.weights.transformers_clip import POSITION_NUMBERS, transformers_clip_table
from models.weights.transformers_videomae import transformers_table
from models.weights.videomae import AnyVideoMAE, videomae_table

Source = Literal["clip", "avion", "lavila", "videomae", "transformers"]
_LEARNED = ("position_cells_GD", "temporal_UD")
_DECODER = ("decoder.", "encoder_to_decoder.", "mask_token")


def load_pretrained(model: nn.Module, config: ModelConfig, path: Path, *, source: Source) -> KeyTable:
    """Fill a model in place with weights of others; returns the table, whose `fresh` and `left` say what was not taken.

    OpenAI's and open_clip's CLIP is inflated to video; its projections are taken if the joint space has their width.
    Learned positions of other lengths and sizes than the model's are interpolated (AVION's 4 to 16 frames).
    Raises WeightsFileError for the file, WeightsMismatchError for names or shapes that do not fit, and ValueError for a
    model that such weights are not for.
    """
    theirs = read_weights(path)
    table = choose_table(config, theirs, source=source)
    fill_model(model, fit_weights(import_weights(theirs, table), config), fresh=table.fresh)
    return table


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


def fit_weights(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights of ours with learned positions interpolated to the clips that a model of this configuration takes."""
    grid = _grid(config)
    tables = {table: tensor for table in _LEARNED for name, tensor in weights.items() if name.endswith(table)}
    if grid is None or len(tables) != 2:
        return weights
    cells, slots = (tables[table].shape[0] for table in _LEARNED)
    side = math.isqrt(cells)
    if (cells, slots) == (grid.cells, grid.slots) or side**2 != cells:
        return weights
    source = replace(
        grid, frames=slots * grid.tubelet_frames, height_px=side * grid.patch_px, width_px=side * grid.patch_px
    )
    return fit_positions(weights, source=source, target=grid)


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


def _grid(config: ModelConfig) -> TubeletGrid | None:
    if isinstance(config, DualEncoderConfig):
        return config.video.grid
    encoder = config.encoder if isinstance(config, ClassifierConfig) else config
    return getattr(encoder, "grid", None)
