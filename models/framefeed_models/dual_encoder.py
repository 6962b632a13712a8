"""A video encoder and a text encoder that meet in one space; it knows no loss, no words and no processes.

Axes: B clips or texts, T frames, Y rows, X columns, C channels, L tokens of a text, D a tower's width, E joint width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from framefeed_models.block import VIT_STACKS, Activation, StackConfig
from framefeed_models.clip_noise import fold
from framefeed_models.encoder import EncoderConfig, feature_of, make_encoder
from framefeed_models.own_part import own_part
from framefeed_models.text import TextConfig, TextTransformer
from framefeed_models.vit import clip_vit

INITIAL_TEMPERATURE = 0.07
LARGEST_SCALE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DualEncoderConfig:
    """Two towers and the width of their joint space (AVION and LaViLa: 256; OpenAI's CLIP: the text's width).

    `learn_temperature` off keeps the scale of the logits at 1 / 0.07, as AVION's recipes do.
    """

    video: EncoderConfig
    text: TextConfig
    joint: int = 256
    learn_temperature: bool = True

    def __post_init__(self) -> None:
        if self.joint < 1:
            raise ValueError(f"dual encoder: joint is {self.joint}, wanted at least 1")


class DualEncoding(NamedTuple):
    """float32 rows of length 1, `video_BE` and `text_BE`, and the float32 `scale` (1,) of their inner products.

    A tuple, because FSDP2 finds the tensors of a module's output in containers of Python only.
    """

    video_BE: Tensor
    text_BE: Tensor
    scale: Tensor

    def logits(self) -> Tensor:
        """scale · video_i · text_j, (B, B) (Radford et al. 2021, figure 3)."""
        return self.scale * self.video_BE @ self.text_BE.T

    def joined(self) -> Tensor:
        """All of it as one tensor (B, 2 E + 1), row i of clip i, to be gathered.

        The scale stands in every row, so that its gradient comes back the way the features' does.
        """
        scale_B1 = self.scale.expand(self.video_BE.shape[0], 1)
        return torch.cat((self.video_BE, self.text_BE, scale_B1), dim=1)


def split_rows(rows_BR: Tensor) -> DualEncoding:
    """What `DualEncoding.joined` has joined, of one process or of several."""
    joint = (rows_BR.shape[1] - 1) // 2
    video_BE, text_BE, scale_B1 = torch.split(rows_BR, [joint, joint, 1], dim=1)
    return DualEncoding(video_BE=video_BE, text_BE=text_BE, scale=scale_B1.mean(dim=0))


class DualEncoder(nn.Module):
    """Clips and texts to the joint space: v = normalise(video(x) W_v), t = normalise(text(y) W_t), scale = exp(s)."""

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__()
        self.config = config
        video_width, text_width = config.video.stack.width, config.text.stack.width
        self.video = make_encoder(config.video)
        self.text = TextTransformer(config.text)
        self.video_projection_DE = nn.Parameter(torch.randn(video_width, config.joint) * video_width**-0.5)
        self.text_projection_DE = nn.Parameter(torch.randn(text_width, config.joint) * text_width**-0.5)
        self.logit_scale = nn.Parameter(
            torch.tensor([math.log(1 / INITIAL_TEMPERATURE)]), requires_grad=config.learn_temperature
        )
        self.register_load_state_dict_pre_hook(_scale_of_one_dimension)  # type: ignore[no-untyped-call]

    def forward(
        self,
        x_BCTYX: Tensor | None = None,
        tokens_BL: Tensor | None = None,
        *,
        seeds_B: Tensor | None = None,
        frames_B: Sequence[int] | None = None,
    ) -> DualEncoding:
        """Encode float clips (B, C, T, Y, X) and token numbers (B, L); what is not given has no rows in the answer.

        All ways in lead through here, one tower or the scale alone too: outside of it a wrapper such as FSDP2 keeps
        the weights in parts. All that is random follows the clips' seeds, int64 (B,) on their device.
        `frames_B` is how many frames of each clip are no padding. Raises ValueError for shapes that do not fit.
        """
        none_0E = self.video_projection_DE.new_empty(0, self.config.joint, dtype=torch.float32)
        video_BE = text_BE = none_0E
        if x_BCTYX is not None:
            feature_BD = feature_of(self.video, x_BCTYX, seeds_B=fold(seeds_B, 0), frames_B=frames_B)
            video_BE = normalize((feature_BD @ self.video_projection_DE).float(), dim=-1)
        if tokens_BL is not None:
            feature_BD = self.text(tokens_BL, seeds_B=fold(seeds_B, 1))
            text_BE = normalize((feature_BD @ self.text_projection_DE).float(), dim=-1)
        return DualEncoding(video_BE=video_BE, text_BE=text_BE, scale=self.logit_scale.float().exp())

    def encode_video(self, x_BCTYX: Tensor) -> Tensor:
        """float32 rows (B, E) of length 1 for float clips (B, C, T, Y, X), by `forward`."""
        rows_BE: Tensor = self(x_BCTYX).video_BE
        return rows_BE

    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        """float32 rows (B, E) of length 1 for token numbers (B, L), by `forward`."""
        rows_BE: Tensor = self(tokens_BL=tokens_BL).text_BE
        return rows_BE

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the logit scale between 1 and 100, in place, after each optimizer step (Radford et al. 2021, §2.5)."""
        own_part(self.logit_scale).clamp_(0.0, math.log(LARGEST_SCALE))


def _scale_of_one_dimension(_module: nn.Module, weights: dict[str, Tensor], prefix: str, *_rest: object) -> None:
    """Weights from before the scale had a dimension load too: FSDP2 refuses to divide a parameter without one."""
    scale = weights.get(f"{prefix}logit_scale")
    if scale is not None and scale.ndim == 0:
        weights[f"{prefix}logit_scale"] = scale[None]


def clip_text(width: int, *, depth: int = 12, activation: Activation = "gelu") -> TextConfig:
    """CLIP's text transformer of a width (512: ViT-B, 768: ViT-L), heads of 64 channels, eps 1e-5."""
    stack = StackConfig(width=width, depth=depth, heads=width // 64, activation=activation, norm_eps=1e-5, causal=True)
    return TextConfig(stack=stack)


def avion(size: str, *, frames: int = 4, activation: Activation = "gelu") -> DualEncoderConfig:
    """AVION's dual encoders: "CLIP_VITB16", "CLIP_VITL14" or "CLIP_VITL14_336PX".

    `activation` is "gelu" for AVION's own checkpoints, whose code drops `use_quick_gelu`, and "quick_gelu" for weights
    of OpenAI and LaViLa. Raises ValueError for another name.
    """
    if size not in _AVION:
        raise ValueError(f"dual encoder: size is {size!r}, wanted one of {', '.join(_AVION)}")
    stack, size_px, patch_px, text_width = _AVION[size]
    video = clip_vit(
        replace(VIT_STACKS[stack], activation=activation), frames=frames, size_px=size_px, patch_px=patch_px
    )
    return DualEncoderConfig(video=video, text=clip_text(text_width, activation=activation))


_AVION = {
    "CLIP_VITB16": ("base", 224, 16, 512),
    "CLIP_VITL14": ("large", 224, 14, 768),
    "CLIP_VITL14_336PX": ("large", 336, 14, 768),
}
