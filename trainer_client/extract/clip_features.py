"""A model as what makes features of clips, of as many frames as are asked for; knows no data set, server or file.

Axes: B clips, T frames, M frames that the model takes, C channels, N tokens, D width, R values of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from framefeed.errors import BadInput
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.encoder import EncoderConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.weights.config_json import ModelConfig, build_model
from framefeed_models.weights.init_from import Accepted, encoder_prefix, init_from
from framefeed_models.weights.traits import encoder_of
from trainer_client.evaluate.model_file import ModelChoice, ScoredModel, open_model
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.precision import Precision

Feature = Literal["encoder", "joint", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipFeatures:
    """`rows_of` makes float32 (B, *shape) of a batch of clips of `frames` frames; `grid` is what the model takes.

    `fingerprint` is of the weights, configuration and pixels; `notes` say what was done to the weights.
    """

    rows_of: Callable[[DeviceBatch], Tensor]
    shape: tuple[int, ...]
    frames: int
    grid: TubeletGrid
    fingerprint: str
    notes: tuple[str, ...] = ()


def open_features(
    path: Path, choice: ModelChoice, feature: Feature, *, frames: int | None, precision: Precision
) -> ClipFeatures:
    """Read weights on to the device of `precision`. Blocks for as long as the file takes.

    encoder: the video encoder's pooled feature (D,). tokens: all of its normed tokens (N, D), a class token first.
    joint: a dual encoder's row (E,), of length 1. `frames` may be any number: the model is given positions for as many
    whole cubes as hold them, by interpolation where they are learned and anew where they are computed, and the last
    frame is repeated up to there. None: the weights' own.
    Raises BadInput for weights that are not whole, of no video encoder, or without the feature.
    """
    scored = open_model(path, choice, precision.device)
    grid = _grid(scored, frames, path)
    model: nn.Module = scored.model
    if feature == "joint":
        if not isinstance(scored.config, DualEncoderConfig):
            kind = type(scored.config).__name__.removesuffix("Config")
            raise BadInput(f"--feature is joint and model {path} is a {kind}, wanted a dual encoder's, or encoder")
        config: ModelConfig = replace(scored.config, video=replace(scored.config.video, grid=grid))
    else:
        config = replace(encoder_of(scored.config), grid=grid)
        model = model.get_submodule(encoder_prefix(scored.config).rstrip("."))
    notes: tuple[str, ...] = ()
    if grid != scored.grid:
        model, notes = _of_other_frames(path, choice, config, scored)
    return ClipFeatures(
        rows_of=_rows(model.to(precision.device), feature, scored, grid, precision),
        shape=_shape(feature, config),
        frames=grid.frames if frames is None else frames,
        grid=grid,
        fingerprint=scored.fingerprint,
        notes=notes,
    )


def _grid(scored: ScoredModel, frames: int | None, path: Path) -> TubeletGrid:
    try:
        grid = encoder_of(scored.config).grid
    except ValueError as error:
        raise BadInput(f"model {path}: {error}") from None
    if frames is None:
        return grid
    if frames < 1:
        raise BadInput(f"--frames is {frames}, wanted at least 1")
    return replace(grid, frames=math.ceil(frames / grid.tubelet_frames) * grid.tubelet_frames)


def _of_other_frames(
    path: Path, choice: ModelChoice, config: ModelConfig, scored: ScoredModel
) -> tuple[nn.Module, tuple[str, ...]]:
    model = build_model(config)
    accept: tuple[Accepted, ...] = ("positions", "pixels")
    try:
        report = init_from(path, model, pixels=scored.norm, averaged=choice.average, accept=accept)
    except ValueError as error:
        raise BadInput(f"model {path}: {error}") from None
    return model.eval().requires_grad_(False), report.notes


def _rows(
    model: nn.Module, feature: Feature, scored: ScoredModel, grid: TubeletGrid, precision: Precision
) -> Callable[[DeviceBatch], Tensor]:
    def rows_of(batch: DeviceBatch) -> Tensor:
        clips_BCMYX = whole_cubes(batch.normalised(scored.norm), frames=grid.frames)
        with precision.autocast():
            if isinstance(model, DualEncoder):
                rows = model.encode_video(clips_BCMYX)
            else:
                rows = model(clips_BCMYX, pooled=feature == "encoder")
        return rows.float()

    return rows_of


def whole_cubes(clips_BCTYX: Tensor, *, frames: int) -> Tensor:
    """Clips of `frames` frames: the last one of theirs is repeated."""
    missing = frames - clips_BCTYX.shape[2]
    if not missing:
        return clips_BCTYX
    return torch.cat((clips_BCTYX, clips_BCTYX[:, :, -1:].expand(-1, -1, missing, -1, -1)), dim=2)


def _shape(feature: Feature, config: ModelConfig) -> tuple[int, ...]:
    if feature == "joint":
        return (cast(DualEncoderConfig, config).joint,)
    encoder = cast(EncoderConfig, config)
    if feature == "encoder":
        return (encoder.stack.width,)
    return (encoder.grid.tokens + getattr(encoder, "class_token", True), encoder.stack.width)
