"""VideoMAE, the masked autoencoder of video (Tong et al. 2022); knows masks and pixels, not who draws the masks.

Axes: B clips, T frames, Y rows, X columns, C channels, N all tokens of a clip, S visible tokens, M masked tokens,
D width, P pixels of one cube. Implemented from the paper, arXiv 2203.12602.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from framefeed_models.block import VIT_STACKS, Stack, StackConfig, init_xavier
from framefeed_models.clip_noise import fold
from framefeed_models.embedding import position_table
from framefeed_models.tubelets import TubeletGrid, cut_cubes, join_cubes
from framefeed_models.vit import VideoViT, ViTConfig

TARGET_EPS = 1e-6
MASK_TOKEN_STD = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMAEConfig:
    """An encoder that sees the visible cubes and a light decoder that predicts the masked ones."""

    grid: TubeletGrid
    encoder: StackConfig
    decoder: StackConfig
    positions: Literal["flat", "grid"] = "flat"

    @property
    def vit(self) -> ViTConfig:
        """The encoder, as fine-tuning takes it too."""
        return ViTConfig(grid=self.grid, stack=self.encoder, positions=self.positions)

    def __post_init__(self) -> None:
        multiple = 16 if self.positions == "grid" else 2
        for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            if stack.width % multiple:
                wanted = f"a multiple of {multiple} for its {self.positions} positions"
                raise ValueError(f"VideoMAE: {name} width is {stack.width}, wanted {wanted}")


class VideoMAEOutput(NamedTuple):
    """What a forward pass found: `losses_B` of each clip, float32, `predictions_BMPC` in target units, `masked_BM`.

    `predictions_BMPC[b, m]` is the cube number `masked_BM[b, m]` (int64, ascending). `features_BD` are means of the
    encoder's tokens, without gradient; None from `reconstruct`, which has not encoded. A tuple, because FSDP2 finds the
    tensors of a module's output in containers of Python only.
    """

    losses_B: Tensor
    predictions_BMPC: Tensor
    masked_BM: Tensor
    features_BD: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """The mean over clips, which is the mean over all masked pixels: every clip has as many."""
        return self.losses_B.mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitMask:
    """The numbers of the visible (B, S) and of the masked (B, M) cubes of clips, int64, ascending."""

    visible_BS: Tensor
    masked_BM: Tensor

    def place(self, bridged_BSD: Tensor, mask_token_D: Tensor, positions_ND: Tensor) -> Tensor:
        """A decoder's input, (B, N, D): bridged visible cubes, then a mask token for each masked one, all placed.

        Attention has no order of its own, so the masked tokens go last, where they are easy to take off.
        """
        visible_BSD = bridged_BSD + positions_ND[self.visible_BS]
        masked_BMD = mask_token_D + positions_ND[self.masked_BM]
        return torch.cat((visible_BSD, masked_BMD.to(visible_BSD.dtype)), dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeStatistics:
    """Mean and unbiased standard deviation of each cube and channel, (B, N, 1, C) float32."""

    mean_BN1C: Tensor
    std_BN1C: Tensor

    def normalise(self, cubes_BNPC: Tensor) -> Tensor:
        """(x - mean) / (std + 1e-6), the target of Tong et al. 2022, §3.3 (after He et al. 2022, §4)."""
        return (cubes_BNPC - self.mean_BN1C) / (self.std_BN1C + TARGET_EPS)

    def restore(self, targets_BNPC: Tensor) -> Tensor:
        """The pixels that `normalise` would turn into these targets."""
        return targets_BNPC * (self.std_BN1C + TARGET_EPS) + self.mean_BN1C


class VideoMAE(nn.Module):
    """Encode the visible cubes, decode all positions, predict the normalised pixels of the masked ones."""

    positions_ND: Tensor

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        grid, width = config.grid, config.decoder.width
        self.config, self.grid = config, grid
        self.encoder = VideoViT(config.vit)
        self.bridge = nn.Linear(config.encoder.width, width, bias=False)
        self.mask_token_D = nn.Parameter(torch.empty(width))
        self.decoder = Stack(config.decoder)
        self.norm = nn.LayerNorm(width, eps=config.decoder.norm_eps)
        self.head = nn.Linear(width, grid.cube_pixels * grid.channels)
        table_ND = position_table(grid, width=width, kind=config.positions)
        self.register_buffer("positions_ND", table_ND, persistent=False)
        for module in (self.bridge, self.decoder, self.head):
            module.apply(init_xavier)
        nn.init.trunc_normal_(self.mask_token_D, std=MASK_TOKEN_STD)

    def forward(self, x_BCTYX: Tensor, mask_BN: Tensor | SplitMask, *, seeds_B: Tensor | None = None) -> VideoMAEOutput:
        """Predict the masked cubes of normalised float clips; `mask_BN` is bool, True = masked, or split already.

        The target of each cube and channel is (x - mean) / (std + 1e-6), computed in float32; a per-channel affine
        change of the clips, such as ImageNet's normalisation, changes nothing but the weight of the 1e-6. The loss is
        the mean squared error over masked cubes only. Keep the mask on the host: checking it there costs no device
        synchronisation. Drop path follows the clips' seeds, int64 (B,) on their device.
        Raises ValueError if the clips or the mask do not fit the grid, or the rows of the mask differ in their count.
        """
        where = self.split(x_BCTYX, mask_BN)
        encoded_BSD = self.encoder(x_BCTYX, selected_BS=where.visible_BS, seeds_B=fold(seeds_B, 0))
        found = self.reconstruct(x_BCTYX, encoded_BSD, where, seeds_B=fold(seeds_B, 1))
        return found._replace(features_BD=encoded_BSD.detach().mean(dim=1))

    def split(self, x_BCTYX: Tensor, mask_BN: Tensor | SplitMask) -> SplitMask:
        """`split_mask` on the clips' device; one that is split is there. Raises ValueError as `forward` does."""
        if isinstance(mask_BN, SplitMask):
            seen = (len(mask_BN.visible_BS), mask_BN.visible_BS.shape[1] + mask_BN.masked_BM.shape[1])
            if seen != (x_BCTYX.shape[0], self.grid.tokens):
                raise ValueError(f"mask is {seen}, wanted {(x_BCTYX.shape[0], self.grid.tokens)} = (B, N)")
            return mask_BN
        if mask_BN.shape != (x_BCTYX.shape[0], self.grid.tokens):
            wanted = (x_BCTYX.shape[0], self.grid.tokens)
            raise ValueError(f"mask is {tuple(mask_BN.shape)}, wanted {wanted} = (B, N)")
        visible_BS, masked_BM = (each.to(x_BCTYX.device, non_blocking=True) for each in split_mask(mask_BN))
        return SplitMask(visible_BS=visible_BS, masked_BM=masked_BM)

    def reconstruct(
        self, x_BCTYX: Tensor, encoded_BSD: Tensor, where: SplitMask, *, seeds_B: Tensor | None = None
    ) -> VideoMAEOutput:
        """Decode the encoded visible cubes of these clips, predict the masked ones and compare."""
        tokens_BND = where.place(self.bridge(encoded_BSD), self.mask_token_D, self.positions_ND)
        masked_BMD = self.decoder(tokens_BND, seeds_B=seeds_B)[:, -where.masked_BM.shape[1] :]
        values_BMV: Tensor = self.head(self.norm(masked_BMD))
        predictions_BMPC = values_BMV.reshape(*where.masked_BM.shape, self.grid.cube_pixels, self.grid.channels)
        with torch.no_grad():
            cubes_BMPC = cut_cubes(x_BCTYX, grid=self.grid, selected_BS=where.masked_BM).float()
            targets_BMPC = cube_statistics(cubes_BMPC).normalise(cubes_BMPC)
        losses_B = mse_loss(predictions_BMPC.float(), targets_BMPC, reduction="none").flatten(1).mean(dim=1)
        return VideoMAEOutput(losses_B=losses_B, predictions_BMPC=predictions_BMPC, masked_BM=where.masked_BM)


def split_mask(mask_BN: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of the visible (B, S) and the masked (B, M) tokens, int64 and ascending, on the mask's device.

    torch.compile breaks its graph here, for how many tokens are masked is data, and takes what follows as one graph,
    compiled again for another number of tokens. Raises ValueError if the mask is not bool (B, N) or its rows do not all
    mask the same count, leaving one of each.
    """
    if mask_BN.ndim != 2 or mask_BN.dtype != torch.bool:
        raise ValueError(f"mask is {mask_BN.dtype} {tuple(mask_BN.shape)}, wanted bool (B, N), True = masked")
    counts = sorted(set(mask_BN.sum(dim=1).tolist()))
    if len(counts) != 1:
        raise ValueError(f"mask has {counts} masked tokens in its rows, wanted the same count in each")
    tokens = mask_BN.shape[1]
    if not 0 < counts[0] < tokens:
        raise ValueError(f"mask hides {counts[0]} of {tokens} tokens, wanted at least one masked and one visible")
    order_BN = mask_BN.to(torch.uint8).argsort(dim=1, stable=True)
    return order_BN[:, : tokens - counts[0]], order_BN[:, tokens - counts[0] :]


def cube_statistics(cubes_BNPC: Tensor) -> CubeStatistics:
    """Mean and unbiased standard deviation over the pixels of each cube, for each channel, in float32."""
    variance_BN1C, mean_BN1C = torch.var_mean(cubes_BNPC.float(), dim=2, correction=1, keepdim=True)
    return CubeStatistics(mean_BN1C=mean_BN1C, std_BN1C=variance_BN1C.sqrt())


@torch.no_grad()
def rebuild_clips(x_BCTYX: Tensor, output: VideoMAEOutput, *, grid: TubeletGrid) -> Tensor:
    """The clips (B, C, T, Y, X), float32, with every masked cube replaced by its prediction: for a contact sheet.

    A prediction is put back into pixels with the mean and deviation of the true cube, which a model does not know:
    the sheet shows structure that was learned, not brightness. Visible cubes are those of `x_BCTYX`, bit for bit.
    """
    cubes_BNPC = cut_cubes(x_BCTYX, grid=grid, selected_BS=None).float()
    clips_B1 = torch.arange(x_BCTYX.shape[0], device=x_BCTYX.device)[:, None]
    statistics = cube_statistics(cubes_BNPC[clips_B1, output.masked_BM])
    rebuilt_BNPC = cubes_BNPC.clone()
    rebuilt_BNPC[clips_B1, output.masked_BM] = statistics.restore(output.predictions_BMPC.float())
    return join_cubes(rebuilt_BNPC, grid=grid)


def _standard(size: str, *, decoder_depth: int = 4) -> VideoMAEConfig:
    encoder = VIT_STACKS[size]
    decoder = replace(encoder, width=encoder.width // 2, depth=decoder_depth, heads=encoder.heads // 2)
    return VideoMAEConfig(grid=TubeletGrid(), encoder=encoder, decoder=decoder)


# S, B, L, H: the sizes of the published weights (16 frames of 224 px). `tiny` learns in a minute on two CPU cores.
PRESETS: dict[str, VideoMAEConfig] = {
    "tiny": VideoMAEConfig(
        grid=TubeletGrid(frames=8, height_px=64, width_px=64, patch_px=8),
        encoder=StackConfig(width=128, depth=2, heads=4, mlp_ratio=2.0),
        decoder=StackConfig(width=128, depth=1, heads=4, mlp_ratio=2.0),
        positions="grid",
    ),
    "small": _standard("small"),
    "base": _standard("base"),
    "large": _standard("large", decoder_depth=12),
    "huge": _standard("huge", decoder_depth=12),
}
