"""Attention: one function, several backends, one contract. It knows no blocks, projections or tokens.

Axes: B clips, H heads, N query tokens, M key tokens, K head width.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import dropout, scaled_dot_product_attention

Backend = Literal["reference", "sdpa"]


def attend(
    q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, *, backend: Backend, causal: bool, dropout_p: float
) -> Tensor:
    """Softmax attention, softmax(q kᵀ / √K) v (Vaswani et al. 2017, eq. 1), as a tensor of q's shape and dtype.

    Nothing that libraries disagree on has a default:
    `causal` aligns bottom-right, as FlashAttention does since 2.1: the last query sees every key, so query n sees
    keys m ≤ n + M - N; more queries than keys would leave rows without a key and are refused.
    `dropout_p` drops attention weights whenever it is above 0, whatever mode a module is in: pass 0.0 outside training.

    Raises ValueError for shapes, dtypes or devices that do not fit each other, an unknown backend, a probability
    outside [0, 1), or causal attention with N > M. A backend does all of this or refuses; none falls back to another.
    """
    _check_contract(q_BHNK, k_BHMK, v_BHMK, causal=causal, dropout_p=dropout_p)
    if backend == "reference":
        return _attend_reference(q_BHNK, k_BHMK, v_BHMK, causal=causal, dropout_p=dropout_p)
    if backend == "sdpa":
        return _attend_sdpa(q_BHNK, k_BHMK, v_BHMK, causal=causal, dropout_p=dropout_p)
    raise ValueError(f"attention backend is {backend!r}, wanted one of {get_args(Backend)}")


def causal_mask(n_queries: int, *, n_keys: int, device: torch.device) -> Tensor:
    """Boolean (N, M), True where query n may see key m: m ≤ n + M - N, the bottom-right alignment of `attend`."""
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)


def _attend_reference(q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, *, causal: bool, dropout_p: float) -> Tensor:
    logits_BHNM = q_BHNK @ k_BHMK.transpose(-2, -1) / math.sqrt(q_BHNK.shape[-1])
    if causal:
        mask_NM = causal_mask(q_BHNK.shape[-2], n_keys=k_BHMK.shape[-2], device=q_BHNK.device)
        logits_BHNM = logits_BHNM.masked_fill(~mask_NM, -math.inf)
    weights_BHNM = logits_BHNM.softmax(dim=-1)
    if dropout_p > 0:
        weights_BHNM = dropout(weights_BHNM, dropout_p, training=True)
    return weights_BHNM @ v_BHMK


def _attend_sdpa(q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, *, causal: bool, dropout_p: float) -> Tensor:
    n, m = q_BHNK.shape[-2], k_BHMK.shape[-2]
    # torch's is_causal aligns top-left; the two alignments agree when N = M, and only then may the fast path be taken.
    mask_NM = causal_mask(n, n_keys=m, device=q_BHNK.device) if causal and n != m else None
    return scaled_dot_product_attention(
        q_BHNK, k_BHMK, v_BHMK, attn_mask=mask_NM, is_causal=causal and n == m, dropout_p=dropout_p
    )


def _check_contract(q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, *, causal: bool, dropout_p: float) -> None:
    shapes = f"q {tuple(q_BHNK.shape)}, k {tuple(k_BHMK.shape)}, v {tuple(v_BHMK.shape)}"
    if q_BHNK.ndim != 4 or k_BHMK.ndim != 4 or v_BHMK.ndim != 4:
        raise ValueError(f"attention got {shapes}, wanted three tensors (B, H, tokens, K)")
    b, h, n, k = q_BHNK.shape
    m = k_BHMK.shape[2]
    if k_BHMK.shape != (b, h, m, k) or v_BHMK.shape != (b, h, m, k):
        raise ValueError(f"attention got {shapes}, wanted q (B, H, N, K) and k, v (B, H, M, K) of equal B, H, K")
    if 0 in (b, h, n, m, k):
        raise ValueError(f"attention got {shapes}, wanted no empty axis")
    if causal and n > m:
        raise ValueError(f"causal attention got {n} queries over {m} keys, wanted N <= M: each query needs a key")
    dtypes = (q_BHNK.dtype, k_BHMK.dtype, v_BHMK.dtype)
    if len(set(dtypes)) > 1 or not q_BHNK.is_floating_point():
        raise ValueError(f"attention got dtypes {dtypes}, wanted one floating dtype")
    devices = (q_BHNK.device, k_BHMK.device, v_BHMK.device)
    if len(set(devices)) > 1:
        raise ValueError(f"attention got devices {devices}, wanted one")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"attention dropout_p is {dropout_p}, wanted 0 <= p < 1")
