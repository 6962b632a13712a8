"""Attention as the equation says it, at the price of all N x M weights; other backends are held to it by tests.

Axes: B clips, H heads, N query tokens, M key tokens, K head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import dropout


def reference_dense(q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, *, causal: bool, dropout_p: float) -> Tensor:
    """dropout(softmax(q kᵀ / √K)) v (Vaswani et al. 2017, eq. 1); arguments as in `attend`, which has checked them."""
    logits_BHNM = q_BHNK @ k_BHMK.transpose(-2, -1) / math.sqrt(q_BHNK.shape[-1])
    if causal:
        mask_NM = causal_mask(q_BHNK.shape[-2], n_keys=k_BHMK.shape[-2], device=q_BHNK.device)
        logits_BHNM = logits_BHNM.masked_fill(~mask_NM, -math.inf)
    weights_BHNM = logits_BHNM.softmax(dim=-1)
    if dropout_p > 0:
        weights_BHNM = dropout(weights_BHNM, dropout_p, training=True)
    return weights_BHNM @ v_BHMK


def causal_mask(n_queries: int, *, n_keys: int, device: torch.device) -> Tensor:
    """Boolean (N, M), True where query n may see key m: m ≤ n + M - N, the bottom-right alignment of `attend`."""
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)
