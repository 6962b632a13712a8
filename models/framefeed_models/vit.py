"""The video vision transformer: clips in, tokens or one feature out. It knows no task, loss or weights of others.

Axes: B clips, T frames, Y rows, X columns, C channels, N all cubes of a clip, S selected cubes of a clip, D width,
A valid cubes of all clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from framefeed_models.block import Stack, StackConfig, init_truncated_normal, init_xavier
from framefeed_models.clip_noise import ClipDropout, clip_bits, fold
from framefeed_models.embedding import ClipEmbedding, Positions
from framefeed_models.packing import pack, unpack
from framefeed_models.tubelets import TubeletGrid

Pool = Literal["class", "mean"]
_PATCHES, _TOKENS, _BLOCKS = 0, 1, 2  # what draws in a ViT
_READ = 2  # tokens that the last block makes for a class token: it, and one more, for cuDNN takes no single query


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTConfig:
    """A joint space-time vision transformer; the defaults are VideoMAE's encoder, `clip_vit` makes AVION's.

    `pool` makes one feature of a clip: the class token, or the mean of all tokens.
    `norm_pre` is CLIP's norm before the first block. `patch_dropout` is the share of cubes that a training step leaves
    out (Li et al. 2023, "Scaling language-image pre-training via masking"), `dropout` that of channels set to 0.
    `any_shape`: clips may be of other frames and sizes than the grid's, as ClipEmbedding has it.
    Raises ValueError for values that make no network.
    """

    grid: TubeletGrid
    stack: StackConfig
    positions: Positions = "flat"
    class_token: bool = False
    pool: Pool = "mean"
    patch_bias: bool = True
    norm_pre: bool = False
    patch_dropout: float = 0.0
    dropout: float = 0.0
    any_shape: bool = False

    def __post_init__(self) -> None:
        if self.pool not in get_args(Pool):
            raise ValueError(f"ViT: pool is {self.pool!r}, wanted one of {get_args(Pool)}")
        if self.pool == "class" and not self.class_token:
            raise ValueError("ViT: pool is 'class' without a class token, wanted class_token=True or pool='mean'")
        multiple = {"flat": 2, "grid": 16}.get(self.positions, 1)
        if self.stack.width % multiple:
            wanted = f"a multiple of {multiple} for its {self.positions} positions"
            raise ValueError(f"ViT: width is {self.stack.width}, wanted {wanted}")
        for name in ("patch_dropout", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"ViT: {name} is {getattr(self, name)}, wanted 0 <= p < 1")


class VideoViT(nn.Module):
    """Cubes to tokens, pre-norm blocks over all tokens of a clip at once, a final norm (Zhao & Krähenbühl 2023, §3).

    z0 = [class; cube_n E] + positions, z_l = block(z_(l-1)), y = norm(z_L) (Dosovitskiy et al. 2021, eq. 1 to 4).
    With learned positions weights start as AVION's, truncated normal; with fixed ones as VideoMAE's, Xavier-uniform.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config, width = config, config.stack.width
        self.embedding = ClipEmbedding(
            config.grid,
            width=width,
            positions=config.positions,
            class_token=config.class_token,
            bias=config.patch_bias,
            any_shape=config.any_shape,
        )
        self.norm_pre = nn.LayerNorm(width, eps=config.stack.norm_eps) if config.norm_pre else nn.Identity()
        self.dropout = ClipDropout(config.dropout)
        self.stack = Stack(config.stack)
        self.norm = nn.LayerNorm(width, eps=config.stack.norm_eps)
        self.apply(init_truncated_normal if config.positions == "learned" else init_xavier)

    def forward(
        self,
        x_BCTYX: Tensor,
        *,
        selected_BS: Tensor | None = None,
        valid_BN: Tensor | None = None,
        pooled: bool = False,
        seeds_B: Tensor | None = None,
    ) -> Tensor:
        """Encode float clips (B, C, T, Y, X) to normed tokens (B, N, D), or only the cubes `selected_BS` to (B, S, D).

        Clips and tokens have the weights' dtype, or under autocast any and float32.
        A class token, if there is one, comes first and makes N or S one more. `selected_BS` holds int64 cube numbers on
        the clips' device; cubes that are not selected, or that patch dropout leaves out, are never read.
        `pooled` makes one feature (B, D) of each clip instead: pooled first, then normed (AVION; VideoMAE); then
        `valid_BN` (bool, kept on the host) may say which cubes show video and not padding: the others are neither
        attended to nor pooled, and cost nothing behind the embedding.
        `seeds_B`, int64 on the clips' device, are what drop path, dropout and patch dropout of each clip follow.
        Raises ValueError if clips or mask do not fit the grid, a clip has no valid cube, or `valid_BN` is given without
        `pooled`, with `selected_BS` or while patch dropout acts.
        """
        if valid_BN is not None:
            if not pooled or selected_BS is not None:
                raise ValueError("ViT: got valid_BN without pooled or with selected_BS, wanted pooled alone")
            encoded = self._pool_valid(x_BCTYX, valid_BN, seeds_B)
        else:
            of_class = pooled and self.config.pool == "class"
            encoded = self._encode(x_BCTYX, selected_BS, seeds_B, first=_READ if of_class else None)
            if pooled:
                encoded = encoded[:, 0] if self.config.pool == "class" else encoded.mean(dim=1)
        normed: Tensor = self.norm(encoded)
        return normed

    def _encode(
        self, x_BCTYX: Tensor, selected_BS: Tensor | None, seeds_B: Tensor | None, *, first: int | None
    ) -> Tensor:
        share = self.config.patch_dropout
        if selected_BS is None and self.training and share > 0:
            seeds_of_patches_B = fold(seeds_B, _PATCHES)
            tokens = self.embedding.grid_of(x_BCTYX).tokens
            selected_BS = keep_patches(x_BCTYX, seeds_of_patches_B, tokens=tokens, dropout=share)
        tokens_BND = self._embed(x_BCTYX, selected_BS, seeds_B)
        encoded_BND: Tensor = self.stack(tokens_BND, seeds_B=fold(seeds_B, _BLOCKS), first=first)
        return encoded_BND

    def _embed(self, x_BCTYX: Tensor, selected_BS: Tensor | None, seeds_B: Tensor | None) -> Tensor:
        embedded_BND = self.norm_pre(self.embedding(x_BCTYX, selected_BS=selected_BS))
        tokens_BND: Tensor = self.dropout(embedded_BND, fold(seeds_B, _TOKENS))
        return tokens_BND

    def _pool_valid(self, x_BCTYX: Tensor, valid_BN: Tensor, seeds_B: Tensor | None) -> Tensor:
        if self.training and self.config.patch_dropout > 0:
            raise ValueError("ViT: got valid_BN in training with patch_dropout, wanted one of the two")
        wanted = (x_BCTYX.shape[0], self.embedding.grid_of(x_BCTYX).tokens)
        if valid_BN.shape != wanted or valid_BN.dtype != torch.bool or not bool(valid_BN.any(dim=1).all()):
            seen = f"{valid_BN.dtype} {tuple(valid_BN.shape)}"
            raise ValueError(f"ViT: valid_BN is {seen}, wanted bool {wanted} = (B, N) with a valid cube in each clip")
        if self.config.class_token:
            valid_BN = torch.cat((valid_BN.new_ones(valid_BN.shape[0], 1), valid_BN), dim=1)
        tokens_AD, packing = pack(self._embed(x_BCTYX, None, seeds_B), valid_BN)
        encoded_BND = unpack(self.stack(tokens_AD[None], packing, fold(seeds_B, _BLOCKS))[0], valid_BN)
        if self.config.pool == "class":
            return encoded_BND[:, 0]
        counts_B1 = packing.offsets.diff()[:, None]
        return encoded_BND.sum(dim=1) / counts_B1


def keep_patches(x_BCTYX: Tensor, seeds_B: Tensor | None = None, *, tokens: int, dropout: float) -> Tensor:
    """Random cube numbers that patch dropout keeps, int64 (B, max(1, ⌊N (1 - dropout)⌋)), others for each clip.

    Drawn on the clips' device from the clips' seeds, or without them from torch's generator there.
    """
    kept = max(1, int(tokens * (1.0 - dropout) + 1e-9))
    return clip_bits(seeds_B, x_BCTYX, draws=tokens).argsort(dim=1, stable=True)[:, :kept]


def clip_vit(stack: StackConfig, *, frames: int, size_px: int = 224, patch_px: int = 16) -> ViTConfig:
    """AVION's encoder: CLIP's image transformer over cubes of 1 x p x p, class token, learned space and time.

    `stack` says width, depth, activation ("quick_gelu" for OpenAI's and LaViLa's weights, "gelu" for AVION's) and eps.
    """
    return ViTConfig(
        grid=TubeletGrid(frames=frames, height_px=size_px, width_px=size_px, tubelet_frames=1, patch_px=patch_px),
        stack=stack,
        positions="learned",
        class_token=True,
        pool="class",
        patch_bias=False,
        norm_pre=True,
    )
