"""A model in a folder: model.safetensors and config.json, ours or the one that `transformers` loads.

It knows folders, not what trained the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from framefeed_models.pixel_norm import PixelNorm
from framefeed_models.weights.config_json import ModelConfig, build_model, config_from_json, config_to_json
from framefeed_models.weights.files import FOLDER_FILE, WeightsFileError, read_weights, write_weights
from framefeed_models.weights.key_table import Weights, export_weights, fill_model
from framefeed_models.weights.transformers_videomae import (
    transformers_config,
    transformers_pixels,
    transformers_table,
)
from framefeed_models.weights.videomae import AnyVideoMAE

CONFIG_NAME, PROCESSOR_NAME, PIXELS_NAME = "config.json", "preprocessor_config.json", "pixels"
FORMAT = 1


def save_model(folder: Path, weights: Weights, config: ModelConfig, *, pixels: PixelNorm | None = None) -> None:
    """Write weights and configuration into a folder, which is made; `pixels` are those that it was trained on, None
    where nobody knows. Raises WeightsFileError if that cannot be done.
    """
    _write(folder, weights, _said(config, pixels))


def model_of(model: nn.Module, *, pixels: PixelNorm | None = None) -> dict[str, object]:
    """What config.json beside its weights says of a model; {} for one that is none of this package."""
    config = getattr(model, "config", None)
    return {} if config is None else _said(config, pixels)


def load_model(folder: Path) -> tuple[nn.Module, ModelConfig]:
    """The model in a folder that `save_model` has written, on the CPU, in eval mode.

    Raises WeightsFileError for a folder that holds none, WeightsMismatchError if weights and configuration disagree.
    """
    path = folder / CONFIG_NAME
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict) or saved.get("framefeed_model") != FORMAT:
            raise WeightsFileError(f"model {path} is none of ours, wanted framefeed_model {FORMAT}")
        config = config_from_json(saved["config"])
    except WeightsFileError:
        raise
    except OSError as error:
        raise WeightsFileError(f"model {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError) as error:
        raise WeightsFileError(f"model {path} is damaged: {error}") from None
    model = build_model(config)
    fill_model(model, read_weights(folder))
    return model.eval(), config


def save_for_transformers(
    folder: Path, weights: Weights, config: AnyVideoMAE, *, pixels: PixelNorm | None = None
) -> None:
    """Write a folder that `from_pretrained` of transformers' VideoMAE classes loads, and with `pixels`, as the weights
    were trained, its image processor.

    Raises ValueError for a model that its VideoMAE cannot be, WeightsFileError if the folder cannot be written.
    """
    saved = transformers_config(config)
    _write(folder, export_weights(weights, transformers_table(config)), saved)
    if pixels is not None:
        _write_json(folder / PROCESSOR_NAME, transformers_pixels(config, pixels))


def why_not_transformers(config: ModelConfig) -> str:
    """Why `save_for_transformers` takes no model of this configuration, as a part of a line; "" if it takes it."""
    if not isinstance(config, AnyVideoMAE):
        return f"it is a {type(config).__name__.removesuffix('Config')}, and transformers has VideoMAE's alone"
    try:
        transformers_config(config)
    except ValueError as error:
        return str(error)
    return ""


def _said(config: ModelConfig, pixels: PixelNorm | None) -> dict[str, object]:
    known = {} if pixels is None else {PIXELS_NAME: {"mean": list(pixels.mean), "std": list(pixels.std)}}
    return {"framefeed_model": FORMAT, "config": config_to_json(config), **known}


def _write(folder: Path, weights: Weights, config: Mapping[str, object]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsFileError(f"model folder {folder} cannot be written: {error.strerror}") from None
    _write_json(folder / CONFIG_NAME, config)
    write_weights(folder / FOLDER_FILE, weights)


def _write_json(path: Path, body: Mapping[str, object]) -> None:
    try:
        path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise WeightsFileError(f"model folder {path.parent} cannot be written: {error.strerror}") from None
