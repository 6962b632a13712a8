"""Configurations of models as JSON, and back. It knows dataclasses, no weights and no files.

A configuration is {"kind": its class, its fields…}; a field that is missing keeps its default, one that is unknown is
an error: a typo must not become another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from torch import nn

from framefeed_models.block import StackConfig
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.cmae import CMAE, CMAEConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.text import TextConfig, TextTransformer
from framefeed_models.timesformer import TimeSformer, TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAE, VideoMAEConfig
from framefeed_models.vit import VideoViT, ViTConfig

ModelConfig = (
    ViTConfig | TimeSformerConfig | TextConfig | DualEncoderConfig | ClassifierConfig | VideoMAEConfig | CMAEConfig
)
_MODELS: dict[type, type[nn.Module]] = {
    ViTConfig: VideoViT,
    TimeSformerConfig: TimeSformer,
    TextConfig: TextTransformer,
    DualEncoderConfig: DualEncoder,
    ClassifierConfig: Classifier,
    VideoMAEConfig: VideoMAE,
    CMAEConfig: CMAE,
}
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (*_MODELS, StackConfig, TubeletGrid)}


def build_model(config: ModelConfig) -> nn.Module:
    """The model that a configuration describes, with its initial weights."""
    return _MODELS[type(config)](config)


def config_to_json(config: object) -> dict[str, object]:
    """A configuration as what JSON can say."""
    if type(config).__name__ not in _KINDS or not is_dataclass(config):
        raise ValueError(f"configuration is a {type(config).__name__}, wanted one of {', '.join(_KINDS)}")
    values = {field.name: _to_json(getattr(config, field.name)) for field in fields(config)}
    return {"kind": type(config).__name__, **values}


def config_from_json(saved: object) -> ModelConfig:
    """The model configuration that `config_to_json` has said.

    Raises ValueError for what is none: no kind or an unknown one, unknown fields, values that make no model.
    """
    config = _from_json(saved)
    if type(config) not in _MODELS:
        wanted = ", ".join(kind.__name__ for kind in _MODELS)
        raise ValueError(f"configuration is a {type(config).__name__}, wanted one of {wanted}")
    return config  # type: ignore[return-value]  # it is one of _MODELS' keys


def _to_json(value: object) -> object:
    if is_dataclass(value):
        return config_to_json(value)
    return dict(value) if isinstance(value, Mapping) else value


def _from_json(saved: object) -> object:
    if not isinstance(saved, Mapping) or "kind" not in saved:
        return dict(saved) if isinstance(saved, Mapping) else saved
    kind = _KINDS.get(str(saved["kind"]))
    if kind is None:
        raise ValueError(f"configuration: kind is {saved['kind']!r}, wanted one of {', '.join(_KINDS)}")
    values = {name: _from_json(value) for name, value in saved.items() if name != "kind"}
    if unknown := sorted(values.keys() - {field.name for field in fields(kind)}):
        raise ValueError(f"configuration: {kind.__name__} has no {', '.join(unknown)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"configuration: {error}") from None
