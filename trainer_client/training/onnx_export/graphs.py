"""What of a model is exported as a graph: which inputs it takes and which outputs it has; knows no file format.

Pixels go in as they are in a clip, uint8 RGB, and are normalised in the graph: a graph cannot be given other ones than
its weights were trained with. Axes: B clips or texts, T frames, Y rows, X columns, N cubes of a clip, S visible and M
masked ones, L tokens of a text, V values of a masked cube.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from framefeed_models.classifier import Classifier
from framefeed_models.cmae import CMAE
from framefeed_models.dual_encoder import DualEncoder
from framefeed_models.pixel_norm import PixelNorm
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import SplitMask, VideoMAE
from framefeed_models.weights.config_json import ModelConfig
from framefeed_models.weights.traits import encoder_of

BATCH, VISIBLE, MASKED, LENGTH = "batch", "visible", "masked", "length"
_CLIPS, _MASK_SHARE = 2, 0.75


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """One file: a module in eval mode, what it is called with and what it gives, by name.

    `axes` are the names of each input's axes whose length may be another at each call, by the axis' number.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, str]]
    outputs: tuple[str, ...]
    vocabulary: int = 0
    """Of tokens, where they go in."""

    @property
    def are_logits(self) -> bool:
        """Whether the largest value of an output's row is an answer."""
        return isinstance(self.module, _Logits)

    def answers(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the module itself says."""
        with torch.no_grad():
            found = self.module(*inputs.values())
        return dict(zip(self.outputs, (found,) if isinstance(found, Tensor) else found, strict=True))


def graphs_of(model: nn.Module, config: ModelConfig, norm: PixelNorm) -> tuple[Graph, ...]:
    """The graphs of a model in eval mode.

    An encoder: clips (B, T, Y, X, 3) to its `feature` (B, D). A classifier: to logits (B, classes) by head. A dual
    encoder: two graphs, clips and tokens (B, L) to rows (B, E) of length 1; its temperature is in neither. A masked
    autoencoder, alone or in CMAE-V: clips and the numbers of visible and masked cubes, int64 (B, S) and (B, M), S + M =
    N, to `predictions` (B, M, V) in its targets' units.
    """
    grid = encoder_of(config).grid
    clips = made_clips(grid, count=_CLIPS)
    if isinstance(model, CMAE):
        model = model.branches.mae
    if isinstance(model, VideoMAE):
        order_BN = torch.rand(_CLIPS, grid.tokens, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
        kept = max(round(grid.tokens * (1 - _MASK_SHARE)), 1)
        inputs = {"clips": clips, "visible": order_BN[:, :kept], "masked": order_BN[:, kept:]}
        axes = {"clips": {0: BATCH}, "visible": {0: BATCH, 1: VISIBLE}, "masked": {0: BATCH, 1: MASKED}}
        made = _Masked(model, norm)
        return (Graph(name="videomae", module=made, inputs=inputs, axes=axes, outputs=("predictions",)),)
    inputs, axes = {"clips": clips}, {"clips": {0: BATCH}}
    if isinstance(model, Classifier):
        heads = tuple(model.config.heads)
        return (Graph(name="classifier", module=_Logits(model, norm), inputs=inputs, axes=axes, outputs=heads),)
    if isinstance(model, DualEncoder):
        tokens = torch.ones(_CLIPS, min(4, model.config.text.context), dtype=torch.int64)
        return (
            Graph(name="video", module=_Rows(model, norm), inputs=inputs, axes=axes, outputs=("rows",)),
            Graph(
                name="text",
                module=_Texts(model),
                inputs={"tokens": tokens},
                axes={"tokens": {0: BATCH, 1: LENGTH}},
                outputs=("rows",),
                vocabulary=model.config.text.vocabulary,
            ),
        )
    return (Graph(name="encoder", module=_Pooled(model, norm), inputs=inputs, axes=axes, outputs=("feature",)),)


def made_clips(grid: TubeletGrid, *, count: int, seed: int = 0) -> Tensor:
    """uint8 RGB clips (count, T, Y, X, 3) that look a little like video: blurred noise that slides."""
    draws = torch.Generator().manual_seed(seed)
    height, width, frames = grid.height_px, grid.width_px, grid.frames
    coarse = torch.rand(count, 3, max(height // 8, 2), max((width + 2 * frames) // 8, 2), generator=draws)
    wide = nn.functional.interpolate(coarse, size=(height, width + 2 * frames), mode="bicubic").clamp(0, 1)
    slid = [wide[..., 2 * at : 2 * at + width] for at in range(frames)]
    return (torch.stack(slid, dim=1) * 255).round().to(torch.uint8).movedim(2, -1).contiguous()


class _OfPixels(nn.Module):
    """A model with its normalisation before it."""

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, model: nn.Module, norm: PixelNorm) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean_C", 255.0 * torch.tensor(norm.mean))
        self.register_buffer("std_C", 255.0 * torch.tensor(norm.std))
        self.eval()

    def normalised(self, clips_BTYXC: Tensor) -> Tensor:
        """(B, C, T, Y, X)."""
        return ((clips_BTYXC.float() - self.mean_C) / self.std_C).movedim(-1, 1)


class _Pooled(_OfPixels):
    def forward(self, clips: Tensor) -> Tensor:
        return cast(Tensor, self.model(self.normalised(clips), pooled=True))


class _Logits(_OfPixels):
    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(self.normalised(clips)).values())


class _Rows(_OfPixels):
    def forward(self, clips: Tensor) -> Tensor:
        return cast(DualEncoder, self.model).encode_video(self.normalised(clips))


class _Texts(nn.Module):
    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


class _Masked(_OfPixels):
    def forward(self, clips: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        mae, x_BCTYX = cast(VideoMAE, self.model), self.normalised(clips)
        where = SplitMask(visible_BS=visible, masked_BM=masked)
        encoded_BSD = mae.encoder(x_BCTYX, selected_BS=visible)
        return mae.reconstruct(x_BCTYX, encoded_BSD, where).predictions_BMPC.flatten(2)
