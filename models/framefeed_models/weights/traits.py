"""What weights were trained with that no tensor shows: activation, eps, attention heads, pixel normalisation.

It knows configurations, no files and no names of weights. A silent contradiction computes another function: OpenAI's
CLIP under exact GELU loses several points without a word (open_clip issue 771).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, cast

from framefeed_models.block import Activation, StackConfig
from framefeed_models.classifier import ClassifierConfig
from framefeed_models.cmae import CMAEConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.encoder import EncoderConfig
from framefeed_models.pixel_norm import PixelNorm
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.weights.config_json import ModelConfig

ConfigT = TypeVar("ConfigT", bound=ModelConfig)
Trait = Literal["activation", "norm_eps", "attention_heads", "pixels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerTraits:
    """Of one transformer; None where neither the file nor its kind says it."""

    activation: Activation | None = None
    norm_eps: float | None = None
    attention_heads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Of a checkpoint: its video encoder, its text encoder if it has one, and the pixels it has seen."""

    video: TowerTraits
    text: TowerTraits | None = None
    pixels: PixelNorm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """The model is configured otherwise than the weights were trained, or the weights do not say how they were."""

    trait: Trait
    line: str


def tower_traits(stack: StackConfig) -> TowerTraits:
    """What a stack of ours is configured with."""
    return TowerTraits(activation=stack.activation, norm_eps=stack.norm_eps, attention_heads=stack.heads)


def encoder_of(config: ModelConfig) -> EncoderConfig:
    """The video encoder in a configuration. Raises ValueError for a model without one."""
    if isinstance(config, DualEncoderConfig):
        return config.video
    if isinstance(config, CMAEConfig):
        return config.mae.vit
    if isinstance(config, VideoMAEConfig):
        return config.vit
    if isinstance(config, ClassifierConfig):
        return config.encoder
    if isinstance(config, EncoderConfig):
        return config
    raise ValueError(f"{type(config).__name__.removesuffix('Config')} has no video encoder")


def follow(config: ConfigT, traits: Traits) -> ConfigT:
    """The configuration with activation, eps and heads as the weights were trained, where that is known.

    Only for models whose encoder can be given another stack: all but a masked autoencoder's decoder, which is the
    model's own.
    """
    followed: ModelConfig
    if isinstance(config, DualEncoderConfig):
        text = config.text
        if traits.text is not None:
            text = replace(text, stack=_followed(text.stack, traits.text))
        followed = replace(config, video=follow(config.video, traits), text=text)
    elif isinstance(config, CMAEConfig):
        followed = replace(config, mae=follow(config.mae, traits))
    elif isinstance(config, VideoMAEConfig):
        followed = replace(config, encoder=_followed(config.encoder, traits.video))
    elif isinstance(config, ClassifierConfig):
        followed = replace(config, encoder=follow(config.encoder, traits))
    else:
        followed = replace(config, stack=_followed(config.stack, traits.video))
    return cast("ConfigT", followed)


def contradictions(config: ModelConfig, traits: Traits, *, pixels: PixelNorm | None) -> Iterator[Contradiction]:
    """Where a model, and the pixels it will see, differ from what its weights were trained with."""
    yield from _tower("video encoder", encoder_of(config).stack, traits.video)
    if isinstance(config, DualEncoderConfig) and traits.text is not None:
        yield from _tower("text encoder", config.text.stack, traits.text)
    if pixels is not None and traits.pixels is not None and pixels != traits.pixels:
        line = f"pixels are normalised with {pixels}, the weights were trained with {traits.pixels}"
        yield Contradiction(trait="pixels", line=line)


def _tower(which: str, stack: StackConfig, trained: TowerTraits) -> Iterator[Contradiction]:
    configured = tower_traits(stack)
    traits: tuple[Trait, ...] = ("activation", "norm_eps", "attention_heads")
    for trait in traits:
        seen, wanted = getattr(configured, trait), getattr(trained, trait)
        name = trait.replace("_", " ")
        if trait == "activation" and wanted is None:
            line = f"the weights do not say which activation their {which} was trained with, the model has {seen}"
            yield Contradiction(trait=trait, line=line)
        elif wanted is not None and seen != wanted:
            line = f"{name} of the {which} is {seen}, the weights were trained with {wanted}"
            yield Contradiction(trait=trait, line=line)


def _followed(stack: StackConfig, trained: TowerTraits) -> StackConfig:
    return replace(
        stack,
        activation=trained.activation or stack.activation,
        norm_eps=trained.norm_eps or stack.norm_eps,
        heads=trained.attention_heads or stack.heads,
    )
