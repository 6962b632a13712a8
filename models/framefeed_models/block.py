"""Pre-norm transformer blocks and stacks of them; they know sequences of tokens, not where these come from.

Axes: B clips, N tokens, D width, H heads, K head width. Packed tokens of clips of different lengths are (1, A, D).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from framefeed_models.attention import Backend, PackedHeads, attend, attend_packed
from framefeed_models.clip_noise import clip_scales, fold
from framefeed_models.packing import Packing

Activation = Literal["gelu", "quick_gelu"]
Checkpointing = Literal["none", "block", "sqrt"]
DropPathRule = Literal["linear", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """A stack of `depth` blocks of one shape.

    `activation`: exact GELU (VideoMAE, AVION), or QuickGELU (OpenAI's CLIP, LaViLa).
    `drop_path` is the rate of the last block: it grows linearly from 0 at the first, or is `constant` (AVION).
    `layer_scale` is the initial value of a learned factor on each branch (Touvron et al. 2021, eq. 4); None: no factor.
    `checkpointing` trades time for memory: see `run_blocks`. Raises ValueError for a value that makes no network.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    norm_eps: float = 1e-6
    drop_path: float = 0.0
    drop_path_rule: DropPathRule = "linear"
    layer_scale: float | None = None
    attention_dropout: float = 0.0
    attention: Backend = "sdpa"
    causal: bool = False
    checkpointing: Checkpointing = "none"

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"stack: {name} is {getattr(self, name)}, wanted at least 1")
        if self.width % self.heads:
            raise ValueError(f"stack: width is {self.width}, wanted a multiple of its {self.heads} heads")
        if self.mlp_ratio * self.width < 1:
            raise ValueError(f"stack: mlp_ratio is {self.mlp_ratio}, wanted a hidden layer of at least one unit")
        if not self.norm_eps > 0:
            raise ValueError(f"stack: norm_eps is {self.norm_eps}, wanted a number > 0")
        for name in ("drop_path", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"stack: {name} is {getattr(self, name)}, wanted 0 <= p < 1")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"stack: {name} is {getattr(self, name)!r}, wanted one of {choices}")


_CHOICES = {
    "activation": get_args(Activation),
    "drop_path_rule": get_args(DropPathRule),
    "attention": get_args(Backend),
    "checkpointing": get_args(Checkpointing),
}

# The widths of the field's vision transformers (Dosovitskiy et al. 2021, table 1; S: Touvron et al. 2021, table 1).
VIT_STACKS: dict[str, StackConfig] = {
    "small": StackConfig(width=384, depth=12, heads=6),
    "base": StackConfig(width=768, depth=12, heads=12),
    "large": StackConfig(width=1024, depth=24, heads=16),
    "huge": StackConfig(width=1280, depth=32, heads=16),
}


class QuickGELU(nn.Module):
    """x · σ(1.702 x), the approximation of GELU (Hendrycks & Gimpel 2016, §2) that OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape and dtype."""
        return x * torch.sigmoid(1.702 * x)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, eq. 2): a clip's branch is 0 with probability p, else x / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BND: Tensor, packing: Packing | None = None, seeds_B: Tensor | None = None) -> Tensor:
        """The branch's output (B, N, D), some clips of it zeroed; in eval, or with p = 0, x itself.

        A clip's draw follows its seed, int64 (B,); with more rows than clips each of a clip's rows has its own.
        """
        if self.p == 0.0 or not self.training:
            return x_BND
        rows_R = x_BND[:, 0, 0] if packing is None else x_BND.new_empty(len(packing.lengths))
        clips_B = rows_R if seeds_B is None else rows_R[: len(seeds_B)]
        scale_B = clip_scales(seeds_B, clips_B, draws=len(rows_R) // len(clips_B), p=self.p).flatten()
        if packing is None:
            return x_BND * scale_B[:, None, None]
        return x_BND * scale_B.repeat_interleave(packing.offsets.diff(), output_size=packing.total)[:, None]


class LayerScale(nn.Module):
    """A learned factor for each channel of a branch (Touvron et al. 2021, "Going deeper with image transformers")."""

    def __init__(self, width: int, *, initial: float) -> None:
        super().__init__()
        self.scale_D = nn.Parameter(torch.full((width,), initial))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D)."""
        return x_BND * self.scale_D


class QKVProjection(nn.Linear):
    """One projection to queries, keys and values, in which the keys' bias does not learn.

    That bias adds the same number to all logits of a query, which the softmax cancels: its true gradient is zero, and
    Adam would turn the rounding noise that autograd finds in its place into whole steps. It is there because others'
    weights have it; weights without it (VideoMAE's) import with zeros in its place.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens (B, N, D) to (B, N, 3 D): queries, keys, values."""
        queries_D, keys_D, values_D = self.bias.chunk(3)
        return linear(x_BND, self.weight, torch.cat((queries_D, keys_D.detach(), values_D)))


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection to queries, keys and values, and a bias on each."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.heads, self.backend, self.dropout = config.heads, config.attention, config.attention_dropout
        self.causal = config.causal
        self.qkv = QKVProjection(config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x_BND: Tensor, packing: Packing | None = None, first: int | None = None) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D), or to those of the `first` few, which attend to all.

        With a packing (1, A, D), where each clip attends to itself alone.
        """
        q_BHNK, k_BHNK, v_BHNK = self.split_heads(x_BND)
        if packing is None:
            y_BHNK = self.attend(q_BHNK[:, :, :first], k_BHNK, v_BHNK)
        else:
            q_AHK, k_AHK, v_AHK = (each[0].transpose(0, 1) for each in (q_BHNK, k_BHNK, v_BHNK))
            heads = PackedHeads(q_AHK=q_AHK, k_AHK=k_AHK, v_AHK=v_AHK, queries=packing, keys=packing)
            y_AHK = attend_packed(heads, backend=self.backend, causal=self.causal, dropout_p=self._dropout_p())
            y_BHNK = y_AHK.transpose(0, 1)[None]
        y_BND: Tensor = self.out(y_BHNK.transpose(1, 2).flatten(2))
        return y_BND

    def split_heads(self, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens (B, N, D), each (B, H, N, K): views of one product."""
        q_BHNK, k_BHNK, v_BHNK = self.qkv(x_BND).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q_BHNK, k_BHNK, v_BHNK

    def attend(self, q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor) -> Tensor:
        """`attend` with this module's backend; its dropout in training only."""
        return attend(q_BHNK, k_BHMK, v_BHMK, backend=self.backend, causal=self.causal, dropout_p=self._dropout_p())

    def _dropout_p(self) -> float:
        return self.dropout if self.training else 0.0


class Block(nn.Module):
    """x ← x + drop(attention(norm(x))); x ← x + drop(mlp(norm(x))) (Dosovitskiy et al. 2021, eq. 2 and 3)."""

    def __init__(self, config: StackConfig, *, drop_path: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = SelfAttention(config)
        self.scale_attention = _scale(config)
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = make_mlp(config)
        self.scale_mlp = _scale(config)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x_BND: Tensor,
        packing: Packing | None = None,
        seeds_B: Tensor | None = None,
        first: int | None = None,
    ) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D); with a packing (1, A, D), clip by clip. Drop path follows the seeds.

        Without a packing, the `first` few tokens alone may be asked for.
        """
        attended_BND = self.scale_attention(self.attention(self.norm_attention(x_BND), packing, first))
        x_BND = x_BND[:, :first] + self.drop_path(attended_BND, packing, fold(seeds_B, 0))
        mixed_BND = self.scale_mlp(self.mlp(self.norm_mlp(x_BND)))
        y_BND: Tensor = x_BND + self.drop_path(mixed_BND, packing, fold(seeds_B, 1))
        return y_BND


class Stack(nn.Module):
    """`depth` blocks, one after another, without a final norm."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.checkpointing, self.attention_dropout = config.checkpointing, config.attention_dropout
        self.blocks = nn.ModuleList(Block(config, drop_path=rate) for rate in drop_path_rates(config))

    def forward(
        self,
        x_BND: Tensor,
        packing: Packing | None = None,
        seeds_B: Tensor | None = None,
        first: int | None = None,
    ) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D); with a packing (1, A, D), clip by clip.

        Without a packing, the `first` few tokens alone may be asked for: the last block makes no others.
        Drop path follows the clips' seeds, int64 (B,) on the tokens' device; without them torch's generator. Raises
        ValueError for seeds in training with attention dropout, which is drawn inside the kernels and follows none.
        """
        if seeds_B is not None and self.training and self.attention_dropout > 0:
            seen = f"attention_dropout {self.attention_dropout} with clip seeds"
            raise ValueError(f"stack: got {seen}, wanted 0: its draws cannot follow a clip")
        blocks, checkpointing = list(self.blocks), self.checkpointing
        return run_blocks(blocks, x_BND, packing, seeds_B=seeds_B, first=first, checkpointing=checkpointing)


def run_blocks(
    blocks: Sequence[nn.Module],
    x_BND: Tensor,
    packing: Packing | None = None,
    *,
    seeds_B: Tensor | None = None,
    first: int | None = None,
    checkpointing: Checkpointing,
) -> Tensor:
    """Blocks one after another, tokens (B, N, D) to tokens of the same shape, keeping for the backward pass

    `none`: everything; `block`: the input of each block, so that 12 blocks keep 12 tensors of N x D and one block's
    insides at a time; `sqrt`: the inputs of √L groups of √L blocks, the O(√L N D) of Zhao & Krähenbühl 2023, §4.1
    (Chen et al. 2016, §4.2). What is not kept is computed again, with the same random draws.
    Block i draws from the clips' seeds folded with i. The last one is asked for the `first` tokens alone, if said.
    """
    given: list[tuple[object, ...]] = [(packing, fold(seeds_B, number)) for number in range(len(blocks))]
    if first is not None:
        given[-1] += (first,)
    if checkpointing == "none" or not torch.is_grad_enabled():
        return _run(blocks, x_BND, given)
    group = 1 if checkpointing == "block" else math.ceil(math.sqrt(len(blocks)))
    for start in range(0, len(blocks), group):
        some = slice(start, start + group)
        x_BND = checkpoint(_run, blocks[some], x_BND, given[some], use_reentrant=False)
    return x_BND


def _run(blocks: Sequence[nn.Module], x_BND: Tensor, given: Sequence[tuple[object, ...]]) -> Tensor:
    for block, each in zip(blocks, given, strict=True):
        x_BND = block(x_BND, *each)
    return x_BND


def drop_path_rates(config: StackConfig) -> list[float]:
    """The drop-path rate of each block: `drop_path` in all, or linear from 0 at the first block to it at the last."""
    if config.drop_path_rule == "constant":
        return [config.drop_path] * config.depth
    return [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]


def make_mlp(config: StackConfig) -> nn.Sequential:
    """Linear, activation, Linear: tokens (B, N, D) to a hidden layer of `mlp_ratio` widths and back."""
    hidden = int(config.width * config.mlp_ratio)
    activation = QuickGELU() if config.activation == "quick_gelu" else nn.GELU()
    return nn.Sequential(nn.Linear(config.width, hidden), activation, nn.Linear(hidden, config.width))


def _scale(config: StackConfig) -> nn.Module:
    return nn.Identity() if config.layer_scale is None else LayerScale(config.width, initial=config.layer_scale)


def init_xavier(module: nn.Module) -> None:
    """Set one module's weights as VideoMAE does: Linear weights Xavier-uniform (Glorot & Bengio 2010), biases 0.

    For `nn.Module.apply`; modules that are not Linear keep torch's initial values (LayerNorm: 1 and 0).
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_truncated_normal(module: nn.Module) -> None:
    """Set one module's weights as AVION does: Linear weights from a truncated normal of deviation 0.02, biases 0.

    For `nn.Module.apply`. LayerNorm weights stay 1: AVION draws those too, which no paper says and nothing needs.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
