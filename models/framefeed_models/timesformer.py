"""TimeSformer, attention divided into time and space: the paper's baseline. It knows no task or weights of others.

Axes: B clips, T frames, Y rows, X columns, C channels, N patches of a clip, G patches of a frame, D width, H heads,
K head width. Tokens are the class token, then the patches, frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from framefeed_models.block import (
    DropPath,
    SelfAttention,
    StackConfig,
    drop_path_rates,
    init_truncated_normal,
    make_mlp,
    run_blocks,
)
from framefeed_models.clip_noise import fold
from framefeed_models.embedding import ClipEmbedding
from framefeed_models.packing import Packing
from framefeed_models.tubelets import TubeletGrid

Variant = Literal["lavila", "original"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSformerConfig:
    """A divided space-time transformer over patches of one frame each.

    `variant` says how time and space share a block: `lavila` (frozen-in-time) or `original`, see their blocks.
    `patch_bias` and `norm_pre` are as in `ViTConfig`: CLIP's weights have a norm before and no bias, the original's a
    bias and no norm. Raises ValueError for cubes that span several frames, causal attention or layer scale.
    """

    grid: TubeletGrid
    stack: StackConfig
    variant: Variant = "lavila"
    patch_bias: bool = False
    norm_pre: bool = True

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise ValueError(f"TimeSformer: variant is {self.variant!r}, wanted one of {get_args(Variant)}")
        if self.grid.tubelet_frames != 1:
            raise ValueError(f"TimeSformer: cubes span {self.grid.tubelet_frames} frames, wanted 1")
        if self.stack.causal or self.stack.layer_scale is not None:
            raise ValueError("TimeSformer: stack is causal or has layer scale, wanted neither: no such model exists")


class TimeSformer(nn.Module):
    """Patches to tokens, divided blocks, a final norm; the class token is the clip's feature.

    Positions are learned in space and time (Bertasius et al. 2021, §3); see `ClipEmbedding`.
    """

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        self.config, stack = config, config.stack
        self.embedding = ClipEmbedding(
            config.grid, width=stack.width, positions="learned", class_token=True, bias=config.patch_bias
        )
        self.norm_pre = nn.LayerNorm(stack.width, eps=stack.norm_eps) if config.norm_pre else nn.Identity()
        kind = FrozenInTimeBlock if config.variant == "lavila" else OriginalBlock
        blocks = [kind(stack, frames=config.grid.frames, drop_path=rate) for rate in drop_path_rates(stack)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(stack.width, eps=stack.norm_eps)
        self.apply(init_truncated_normal)
        for block in blocks:
            block.start_without_time()

    def forward(self, x_BCTYX: Tensor, *, pooled: bool = False, seeds_B: Tensor | None = None) -> Tensor:
        """Encode float clips (B, C, T, Y, X) to normed tokens (B, 1 + N, D), the class token first.

        `pooled` makes one feature (B, D) of each clip instead, the normed class token. Drop path follows `seeds_B`,
        int64 on the clips' device. Raises ValueError if the clips do not have the grid's shape, or for seeds in
        training with attention dropout, which can follow none.
        """
        stack = self.config.stack
        if seeds_B is not None and self.training and stack.attention_dropout > 0:
            seen = f"attention_dropout {stack.attention_dropout} with clip seeds"
            raise ValueError(f"TimeSformer: got {seen}, wanted 0: its draws cannot follow a clip")
        tokens_BND = self.norm_pre(self.embedding(x_BCTYX))
        encoded_BND = run_blocks(list(self.blocks), tokens_BND, seeds_B=seeds_B, checkpointing=stack.checkpointing)
        normed: Tensor = self.norm(encoded_BND[:, 0] if pooled else encoded_BND)
        return normed


class DividedBlock(nn.Module):
    """A block that mixes tokens over time, then over space, then through an MLP; subclasses say how the mixing adds up.

    x ← mix(x); x ← x + drop(mlp(norm(x)))
    """

    def __init__(self, config: StackConfig, *, frames: int, drop_path: float) -> None:
        super().__init__()
        self.frames = frames
        self.norm_time = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.time = SelfAttention(config)
        self.norm_space = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.space = SelfAttention(config)
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = make_mlp(config)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BND: Tensor, packing: Packing | None = None, seeds_B: Tensor | None = None) -> Tensor:
        """Tokens (B, 1 + N, D) to tokens of the same shape; drop path follows the seeds (B,). Takes no packing."""
        assert packing is None, "divided attention has no packed form"
        x_BND = self.mix(x_BND, seeds_B)
        y_BND: Tensor = x_BND + self.drop_path(self.mlp(self.norm_mlp(x_BND)), None, fold(seeds_B, 0))
        return y_BND

    def mix(self, x_BND: Tensor, seeds_B: Tensor | None) -> Tensor:
        """Both attentions and what they add to, (B, 1 + N, D)."""
        raise NotImplementedError

    def start_without_time(self) -> None:
        """Give time attention the weights with which it adds nothing, so that the block begins as the image block."""
        raise NotImplementedError


class FrozenInTimeBlock(DividedBlock):
    """LaViLa's block (Bain et al. 2021, "Frozen in time", §3.2.1), in which the residual skips time attention:

    t = time(norm(x)); s = space(norm(x + t)); x ← x + drop(s)
    """

    def mix(self, x_BND: Tensor, seeds_B: Tensor | None) -> Tensor:
        """As above; the class token attends to all tokens, a patch to its place or frame and to the class token."""
        time_BND = attend_in_groups(self.time, self.norm_time(x_BND), frames=self.frames, over="frames")
        mixed_BND = self.norm_space(x_BND + time_BND)
        space_BND = attend_in_groups(self.space, mixed_BND, frames=self.frames, over="patches")
        y_BND: Tensor = x_BND + self.drop_path(space_BND, None, fold(seeds_B, 1))
        return y_BND

    def start_without_time(self) -> None:
        """As LaViLa does: queries, keys and values 0, and 1 in the projection behind them."""
        nn.init.zeros_(self.time.qkv.weight)
        nn.init.ones_(self.time.out.weight)


class OriginalBlock(DividedBlock):
    """The original's (Bertasius et al. 2021, eq. 5 to 9, and its code); each frame has a copy of the class token:

    t = x + W drop(time(norm(x))) for patches; s = drop(space(norm([class; t]))) in each frame;
    x ← [class + mean over frames of its s; t + s]
    """

    def __init__(self, config: StackConfig, *, frames: int, drop_path: float) -> None:
        super().__init__(config, frames=frames, drop_path=drop_path)
        self.time_out = nn.Linear(config.width, config.width)

    def mix(self, x_BND: Tensor, seeds_B: Tensor | None) -> Tensor:
        """As above; patches attend over time without the class token."""
        class_B1D, patches_BTGD = x_BND[:, :1], x_BND[:, 1:].reshape(x_BND.shape[0], self.frames, -1, x_BND.shape[2])
        patches_BTGD = patches_BTGD + self._time(patches_BTGD.transpose(1, 2), fold(seeds_B, 1)).transpose(1, 2)
        space_BTMD = self._space(
            torch.cat((class_B1D[:, None].expand(-1, self.frames, -1, -1), patches_BTGD), dim=2),  # M = 1 + G
            fold(seeds_B, 2),
        )
        class_B1D = class_B1D + space_BTMD[:, :, 0].mean(dim=1, keepdim=True)
        return torch.cat((class_B1D, (patches_BTGD + space_BTMD[:, :, 1:]).flatten(1, 2)), dim=1)

    def start_without_time(self) -> None:
        """A projection of 0 behind time attention, as the original has in all blocks but the first."""
        nn.init.zeros_(self.time_out.weight)

    def _time(self, places_BGTD: Tensor, seeds_B: Tensor | None) -> Tensor:
        mixed_BGTD = self.drop_path(self.time(self.norm_time(places_BGTD).flatten(0, 1)), None, seeds_B)
        time_BGTD: Tensor = self.time_out(mixed_BGTD).reshape(places_BGTD.shape)
        return time_BGTD

    def _space(self, framed_BTMD: Tensor, seeds_B: Tensor | None) -> Tensor:
        mixed_BTMD: Tensor = self.drop_path(self.space(self.norm_space(framed_BTMD).flatten(0, 1)), None, seeds_B)
        return mixed_BTMD.reshape(framed_BTMD.shape)


def attend_in_groups(layer: SelfAttention, x_BND: Tensor, *, frames: int, over: Literal["frames", "patches"]) -> Tensor:
    """LaViLa's attention, (B, 1 + N, D) to the same: patches see only their group and the class token, that sees all.

    Over `frames` a group is one place in all frames, over `patches` it is one frame.
    """
    q_BHNK, k_BHNK, v_BHNK = layer.split_heads(x_BND)
    class_BH1K = layer.attend(q_BHNK[:, :, :1], k_BHNK, v_BHNK)
    q, k, v = (_members(each_BHNK, frames, over) for each_BHNK in (q_BHNK, k_BHNK, v_BHNK))
    k, v = (_with_class(each_BHNK, members) for each_BHNK, members in ((k_BHNK, k), (v_BHNK, v)))
    mixed: Tensor = layer.attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).reshape(q.shape)
    patches_BHNK = mixed.permute(_FROM_GROUPS[over]).flatten(2, 3)
    y_BND: Tensor = layer.out(torch.cat((class_BH1K, patches_BHNK), dim=2).transpose(1, 2).flatten(2))
    return y_BND


# (B, H, T, G, K) to (B, groups, H, members, K) and from there to (B, H, T, G, K) again.
_TO_GROUPS = {"frames": (0, 3, 1, 2, 4), "patches": (0, 2, 1, 3, 4)}
_FROM_GROUPS = {"frames": (0, 2, 3, 1, 4), "patches": (0, 2, 1, 3, 4)}


def _members(x_BHNK: Tensor, frames: int, over: Literal["frames", "patches"]) -> Tensor:
    """The patches among tokens [class; patches], by group: (B, groups, H, members, K)."""
    b, h, _, k = x_BHNK.shape
    return x_BHNK[:, :, 1:].reshape(b, h, frames, -1, k).permute(_TO_GROUPS[over])


def _with_class(x_BHNK: Tensor, members: Tensor) -> Tensor:
    """[class; members] of each group: (B, groups, H, 1 + members, K)."""
    first = x_BHNK[:, None, :, :1].expand(-1, members.shape[1], -1, -1, -1)
    return torch.cat((first, members), dim=3)
