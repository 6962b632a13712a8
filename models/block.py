"""Pre-norm transformer blocks and stacks of them; they know sequences of tokens, not where these come from.

Axes: B clips, N tokens, D width, H heads, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.attention import Backend, attend

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """A stack of `depth` blocks. `drop_path` is the rate of the last block; it grows linearly from 0 at the first.

    `checkpoint_blocks` keeps only the blocks' inputs for the backward pass and computes the rest again.
    Raises ValueError for a value that makes no network.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    attention_dropout: float = 0.0
    attention: Backend = "sdpa"
    checkpoint_blocks: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"stack: {name} is {getattr(self, name)}, wanted at least 1")
        if self.width % self.heads:
            raise ValueError(f"stack: width is {self.width}, wanted a multiple of its {self.heads} heads")
        if self.mlp_ratio * self.width < 1:
            raise ValueError(f"stack: mlp_ratio is {self.mlp_ratio}, wanted a hidden layer of at least one unit")
        for name in ("drop_path", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"stack: {name} is {getattr(self, name)}, wanted 0 <= p < 1")
        if self.attention not in get_args(Backend):
            raise ValueError(f"stack: attention is {self.attention!r}, wanted one of {get_args(Backend)}")


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): a clip's branch is 0 with probability p, else x / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BND: Tensor) -> Tensor:
        """The branch's output (B, N, D), some clips of it zeroed; in eval, or with p = 0, x itself."""
        if self.p == 0.0 or not self.training:
            return x_BND
        keep_B11 = torch.empty(x_BND.shape[0], 1, 1, dtype=x_BND.dtype, device=x_BND.device).bernoulli_(1.0 - self.p)
        return x_BND * (keep_B11 / (1.0 - self.p))


class SelfAttention(nn.Module):
    """Multi-head self-attention with a bias on queries, keys and values.

    The keys' bias adds the same number to all logits of a query, which the softmax cancels; it is there so that the
    one projection is a plain Linear, and weights without it (VideoMAE's) import with zeros in its place.
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.heads, self.backend, self.dropout = config.heads, config.attention, config.attention_dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D)."""
        q_BHNK, k_BHNK, v_BHNK = self.qkv(x_BND).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout_p = self.dropout if self.training else 0.0
        y_BHNK = attend(q_BHNK, k_BHNK, v_BHNK, backend=self.backend, causal=False, dropout_p=dropout_p)
        y_BND: Tensor = self.out(y_BHNK.transpose(1, 2).flatten(2))
        return y_BND


class Block(nn.Module):
    """x ← x + drop(attention(norm(x))); x ← x + drop(mlp(norm(x))) (Dosovitskiy et al. 2021, eq. 2 and 3)."""

    def __init__(self, config: StackConfig, *, drop_path: float) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.norm_attention = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.attention = SelfAttention(config)
        self.norm_mlp = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, config.width))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D)."""
        x_BND = x_BND + self.drop_path(self.attention(self.norm_attention(x_BND)))
        y_BND: Tensor = x_BND + self.drop_path(self.mlp(self.norm_mlp(x_BND)))
        return y_BND


class Stack(nn.Module):
    """`depth` blocks, one after another, without a final norm."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.checkpoint_blocks = config.checkpoint_blocks
        self.blocks = nn.ModuleList(Block(config, drop_path=rate) for rate in drop_path_rates(config))

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D)."""
        for block in self.blocks:
            if self.checkpoint_blocks and torch.is_grad_enabled():
                x_BND = checkpoint(block, x_BND, use_reentrant=False)
            else:
                x_BND = block(x_BND)
        return x_BND


def drop_path_rates(config: StackConfig) -> list[float]:
    """The drop-path rate of each block: linear from 0 at the first block to `drop_path` at the last."""
    return [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]


def init_xavier(module: nn.Module) -> None:
    """Set one module's weights as VideoMAE does: Linear weights Xavier-uniform (Glorot & Bengio 2010), biases 0.

    For `nn.Module.apply`; modules that are not Linear keep torch's initial values (LayerNorm: 1 and 0).
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
