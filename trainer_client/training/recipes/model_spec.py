"""What a recipe says of its model, and the configuration that it makes; knows no task, data or weights.

Sizes are the field's names of them; a recipe's user changes single fields. Each spec raises BadInput for values that
make no network, when its configuration is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeVar, cast

import torch
import tyro

from framefeed.errors import BadInput
from framefeed.request import MAX_SIDE_PX
from framefeed.spans import MAX_FRAMES
from framefeed_models.attention import Backend
from framefeed_models.attention_flash import PACKAGES
from framefeed_models.block import VIT_STACKS, Activation, Checkpointing, DropPathRule, StackConfig
from framefeed_models.classifier import ClassifierConfig
from framefeed_models.cmae import CMAEConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.encoder import EncoderConfig
from framefeed_models.pixel_norm import PIXEL_NORMS, PixelNorm
from framefeed_models.text import TextConfig
from framefeed_models.timesformer import TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import PRESETS, VideoMAEConfig
from framefeed_models.vit import ViTConfig, clip_vit
from framefeed_models.weights.config_json import ModelConfig
from trainer_client.text.tokens import TokenLayout

ConfigT = TypeVar("ConfigT")
Preset = Literal["tiny", "small", "base", "large", "huge"]

_TINY = StackConfig(width=128, depth=2, heads=4, mlp_ratio=2.0)
_HEAD_WIDTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MaeModel:
    """VideoMAE (Tong et al. 2022)."""

    preset: Preset = "base"
    """Size of the model; tiny learns in a minute on two CPU cores."""
    frames: int | None = None
    """Frames of a clip. Default: the preset's (tiny 8, others 16)."""
    size_px: int | None = None
    """Height and width of a clip in pixels. Default: the preset's (tiny 64, others 224)."""

    def config(self) -> VideoMAEConfig:
        """The preset with what was chosen otherwise. Raises BadInput if the cubes do not tile the clip."""
        preset = PRESETS[self.preset]
        try:
            return replace(preset, grid=_grid(preset.grid, frames=self.frames, size_px=self.size_px))
        except ValueError as error:
            raise BadInput(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class CmaeModel:
    """CMAE-V (Lu et al. 2023): a VideoMAE with a contrastive branch."""

    preset: Preset = "base"
    """Size of the masked autoencoder; tiny learns in a minute on two CPU cores."""
    frames: int | None = None
    """Frames of a view. Default: the preset's (tiny 8, others 16)."""
    size_px: int | None = None
    """Height and width of a clip in pixels. Default: the preset's (tiny 64, others 224)."""
    feature_width: int = 512
    """Width of the feature decoder."""
    feature_depth: int = 2
    """Blocks of the feature decoder."""
    feature_heads: int = 16
    """Attention heads of the feature decoder."""
    hidden: int = 1536
    """Width of the hidden layer of projector and predictor."""
    joint: int = 256
    """Width of the space in which views are compared."""
    temperature: float = 0.07
    """Of the contrast."""
    contrastive_weight: float = 1.0
    """Of the contrast beside the reconstruction."""
    scaled_by_temperature: bool = True
    """Multiply the contrast by twice the temperature, as the authors' code does; their formula does not."""

    def config(self) -> CMAEConfig:
        """Raises BadInput for values that make no network."""
        mae = MaeModel(preset=self.preset, frames=self.frames, size_px=self.size_px).config()
        try:
            return CMAEConfig(
                mae=mae,
                feature=StackConfig(width=self.feature_width, depth=self.feature_depth, heads=self.feature_heads),
                hidden=self.hidden,
                joint=self.joint,
                temperature=self.temperature,
                contrastive_weight=self.contrastive_weight,
                scaled_by_temperature=self.scaled_by_temperature,
            )
        except ValueError as error:
            raise BadInput(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEncoder:
    """A video encoder: CLIP's over space and time at once, TimeSformer's divided, or VideoMAE's."""

    family: Literal["clip", "timesformer", "videomae"] = "clip"
    """clip: class token, learned positions, cubes of one frame (AVION). timesformer: attention divided into time and
    space (LaViLa). videomae: mean of all tokens, fixed positions, cubes of two frames."""
    size: Preset = "base"
    """Width, depth and heads of the encoder."""
    frames: int = 16
    """Frames of a clip."""
    size_px: int = 224
    """Height and width of a clip in pixels."""
    patch_px: int = 16
    """Height and width of a cube in pixels."""
    activation: Activation = "gelu"
    """Of the encoders, as the weights were trained: quick_gelu for OpenAI's and LaViLa's, gelu for AVION's."""
    norm_eps: float = 1e-6
    """Of the encoder's norms: 1e-5 for OpenAI's weights as they were trained."""
    drop_path: float = 0.0
    """Probability that a block's branch is left out, of the last block."""
    drop_path_rule: DropPathRule = "linear"
    """linear: growing from 0 at the first block; constant: the same in all."""
    patch_dropout: float = 0.0
    """Share of the cubes that a training step leaves out (clip and videomae)."""
    pixel_norm: Literal["imagenet", "clip", "lavila"] = "imagenet"
    """How pixels are normalised, as the weights were trained."""

    def config(self) -> EncoderConfig:
        """Raises BadInput or ValueError for values that make no network."""
        stack = replace(
            _TINY if self.size == "tiny" else VIT_STACKS[self.size],
            activation=self.activation,
            norm_eps=self.norm_eps,
            drop_path=self.drop_path,
            drop_path_rule=self.drop_path_rule,
        )
        if self.patch_px < 1:
            raise BadInput(f"--patch-px is {self.patch_px}, wanted at least 1")
        patches = TubeletGrid(height_px=self.patch_px, width_px=self.patch_px, patch_px=self.patch_px)
        if self.family == "videomae":
            return ViTConfig(
                grid=_grid(patches, frames=self.frames, size_px=self.size_px),
                stack=stack,
                positions="grid" if self.size == "tiny" else "flat",
                patch_dropout=self.patch_dropout,
            )
        _grid(replace(patches, tubelet_frames=1), frames=self.frames, size_px=self.size_px)
        vit = clip_vit(stack, frames=self.frames, size_px=self.size_px, patch_px=self.patch_px)
        if self.family == "clip":
            return replace(vit, patch_dropout=self.patch_dropout)
        if self.patch_dropout:
            raise ValueError(f"TimeSformer: patch_dropout is {self.patch_dropout}, wanted 0: it needs every patch")
        return TimeSformerConfig(grid=vit.grid, stack=stack)

    @property
    def norm(self) -> PixelNorm:
        """The normalisation of that name."""
        return PIXEL_NORMS[self.pixel_norm]


_Encoder = Annotated[VideoEncoder, tyro.conf.arg(name="")]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowersModel:
    """A video encoder and a text encoder that meet in one space."""

    encoder: _Encoder = field(default_factory=VideoEncoder)
    text_width: int = 512
    """Width of the text encoder, heads of 64 channels (ViT-B: 512, ViT-L: 768)."""
    text_depth: int = 12
    """Blocks of the text encoder."""
    joint: int = 256
    """Width of the space in which clips and texts meet."""
    learn_temperature: bool = True
    """Off: the logits' scale stays at 1 / 0.07, as in AVION's recipes."""

    def config(self, layout: TokenLayout) -> DualEncoderConfig:
        """For a tokenizer of this layout. Raises BadInput for values that make no network."""
        try:
            text = StackConfig(
                width=self.text_width,
                depth=self.text_depth,
                heads=max(self.text_width // _HEAD_WIDTH, 1),
                activation=self.encoder.activation,
                norm_eps=1e-5,
                causal=True,
            )
            return DualEncoderConfig(
                video=self.encoder.config(),
                text=TextConfig(stack=text, vocabulary=layout.vocabulary, context=layout.context),
                joint=self.joint,
                learn_temperature=self.learn_temperature,
            )
        except ValueError as error:
            raise BadInput(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierModel:
    """A video encoder with linear heads."""

    encoder: _Encoder = field(default_factory=VideoEncoder)
    heads: dict[str, int] = field(default_factory=dict)
    """Classes of each head by the name of the label that it says. Default: those of the data set."""
    dropout: float = 0.0
    """Of the feature before the heads."""
    head_std: float = 0.01
    """Deviation of the heads' first weights: 0.01 (AVION, LaViLa), 2e-5 (VideoMAE)."""

    def config(self, classes: Mapping[str, int]) -> ClassifierConfig:
        """For labels of so many classes, if the recipe names none. Raises BadInput for values that make no network."""
        try:
            return ClassifierConfig(
                encoder=self.encoder.config(),
                heads=dict(self.heads or classes),
                dropout=self.dropout,
                head_std=self.head_std,
            )
        except ValueError as error:
            raise BadInput(str(error)) from None


ModelSpec = MaeModel | CmaeModel | TowersModel | ClassifierModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """How a model's layers are computed; which weights come out does not depend on it, but for rounding."""

    attention: Backend = "sdpa"
    """Attention's kernel: torch's choice (sdpa) or one of its, the flash-attn package, or the plain equation."""
    checkpointing: Checkpointing = "none"
    """Activations kept: all, each block's input, or each √depth-th; the rest is computed again, a third more time."""

    def check(self, device: torch.device) -> None:
        """Raises BadInput for a kernel that this machine does not have on that device."""
        if self.attention == "flash" and (device.type != "cuda" or not PACKAGES):
            lack = "flash-attn is not installed" if not PACKAGES else f"it does not run on {device.type}"
            raise BadInput(f"--attention is flash, and {lack}; wanted sdpa, or pip install 'framefeed[flash]' on a GPU")

    def on(self, config: ConfigT) -> ConfigT:
        """A configuration with this in all of its stacks."""
        changes = dict[str, object]()
        for one in dataclasses.fields(cast(Any, config)):
            value = getattr(config, one.name)
            if isinstance(value, StackConfig):
                changes[one.name] = replace(value, attention=self.attention, checkpointing=self.checkpointing)
            elif dataclasses.is_dataclass(value):
                changes[one.name] = self.on(value)
        return cast(ConfigT, replace(cast(Any, config), **changes))


def decided(config: ModelConfig) -> ModelConfig:
    """What of a configuration decides the weights: the same for all ways to compute it."""
    return Kernels().on(config)


def _grid(preset: TubeletGrid, *, frames: int | None, size_px: int | None) -> TubeletGrid:
    """The preset's cubes over clips of these sizes. Raises BadInput, by the option, for one that they do not tile."""
    for option, value, step, most in (
        ("--frames", frames, preset.tubelet_frames, MAX_FRAMES),
        ("--size-px", size_px, preset.patch_px, MAX_SIDE_PX),
    ):
        if value is not None and (not 1 <= value <= most or value % step):
            fitting = f"a multiple of {step}" if value >= 1 and step > 1 else "at least 1"
            wanted = f"at most {most}" if value > most else fitting
            raise BadInput(f"{option} is {value}, wanted {wanted}")
    height_px, width_px = (preset.height_px, preset.width_px) if size_px is None else (size_px, size_px)
    return replace(preset, frames=preset.frames if frames is None else frames, height_px=height_px, width_px=width_px)
