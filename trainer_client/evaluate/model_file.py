"""The model that is scored: any checkpoint of a known kind, whole, with the pixels it was trained on and a fingerprint.

It knows no data set and no metric.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from framefeed_models.dual_encoder import avion
from framefeed_models.own_part import whole_tensor
from framefeed_models.pixel_norm import CLIP, PIXEL_NORMS, PixelNorm
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.weights.config_json import ModelConfig, build_model, config_to_json
from framefeed_models.weights.init_from import Accepted, init_from
from framefeed_models.weights.recognise import Recognised, recognise
from framefeed_models.weights.traits import encoder_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """What weights do not say of themselves."""

    average: bool = False
    """Take the moving average of the weights."""
    arch: str | None = None
    """For weights of AVION: CLIP_VITB16, CLIP_VITL14 or CLIP_VITL14_336PX. Default: framefeed's say it."""
    pixels: str | None = None
    """How pixels are normalised: clip, imagenet or lavila. Default: as the weights' kind was trained, else clip."""

    def __post_init__(self) -> None:
        if self.pixels is not None and self.pixels not in PIXEL_NORMS:
            raise BadInput(f"--pixels is {show_value(self.pixels)}, wanted one of {', '.join(PIXEL_NORMS)}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredModel:
    """A model on its device in eval mode, its configuration, pixels and the fingerprint of both and its weights."""

    model: nn.Module
    config: ModelConfig
    norm: PixelNorm
    fingerprint: str

    @property
    def grid(self) -> TubeletGrid:
        """The clips that it takes."""
        return encoder_of(self.config).grid


def open_model(path: Path, choice: ModelChoice, device: torch.device) -> ScoredModel:
    """Read the weights. Blocks for as long as the file takes.

    Raises BadInput for a file that is no checkpoint, does not say its size, or has not all weights of its model.
    """
    try:
        source = recognise(path, averaged=choice.average)
        config = _config(choice, source)
        model = build_model(config)
        norm = PIXEL_NORMS[choice.pixels] if choice.pixels else source.traits.pixels or CLIP
        accept: tuple[Accepted, ...] = ("pixels",) if choice.pixels else ()
        report = init_from(path, model, pixels=norm, averaged=choice.average, accept=accept)
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(f"model {path}: {error}") from None
    if report.fresh:
        raise BadInput(f"model {path} has not all weights: {', '.join(report.fresh[:3])} would be random")
    model.eval().requires_grad_(False)
    return ScoredModel(model=model.to(device), config=config, norm=norm, fingerprint=fingerprint(model, config, norm))


def _config(choice: ModelChoice, source: Recognised) -> ModelConfig:
    if source.config is not None:
        return source.config
    if choice.arch is None:
        raise BadInput(f"model {source.path} is of {source.kind}, which does not say its size, wanted --model.arch")
    return avion(choice.arch, frames=source.frames or 4, activation=source.traits.video.activation or "gelu")


def fingerprint(model: nn.Module, config: ModelConfig, norm: PixelNorm) -> str:
    """Of all that decides what the model says of a clip: equal for equal weights in any kind of file. Of weights that
    are divided among ranks a collective.
    """
    whole = hashlib.blake2b(json.dumps([config_to_json(config), norm.mean, norm.std]).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(whole_tensor(tensor).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"v1-{whole.hexdigest()}"
