"""Attention: one function, several backends, one contract. It knows no blocks, projections or tokens.

Axes: B clips, H heads, N query tokens, M key tokens, K head width, A all tokens of packed sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from framefeed_models.attention_flash import choose_package
from framefeed_models.attention_reference import reference_dense
from framefeed_models.attention_sdpa import SDPA_KERNELS, sdpa_dense
from framefeed_models.packing import Packing

Backend = Literal["reference", "sdpa", "sdpa-flash", "sdpa-cudnn", "sdpa-efficient", "flash"]


def attend(
    q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, *, backend: Backend, causal: bool, dropout_p: float
) -> Tensor:
    """Softmax attention, softmax(q kᵀ / √K) v (Vaswani et al. 2017, eq. 1), as a tensor of q's shape and dtype.

    Nothing that libraries disagree on has a default:
    `causal` aligns bottom-right, as FlashAttention does since 2.1: the last query sees every key, so query n sees
    keys m ≤ n + M - N; more queries than keys would leave rows without a key and are refused.
    `dropout_p` drops attention weights whenever it is above 0, whatever mode a module is in: pass 0.0 outside training.

    Backends: `reference` is the equation; `sdpa` is torch's, which picks a kernel; `sdpa-flash`, `sdpa-cudnn` and
    `sdpa-efficient` are those kernels of torch and no other; `flash` is the flash-attn that is installed (2, 3 or 4).
    Raises ValueError for shapes, dtypes or devices that do not fit each other, an unknown backend, a probability
    outside [0, 1), or causal attention with N > M. A backend does all of this or refuses with a ValueError that names
    what it lacks; none falls back to another.
    """
    _check_dense(q_BHNK, k_BHMK, v_BHMK)
    _check_rules(causal=causal, dropout_p=dropout_p, lengths=[(q_BHNK.shape[2], k_BHMK.shape[2])])
    if backend == "reference":
        return reference_dense(q_BHNK, k_BHMK, v_BHMK, causal=causal, dropout_p=dropout_p)
    if backend == "flash":
        return choose_package(q_BHNK).attend(q_BHNK, k_BHMK, v_BHMK, causal=causal, dropout_p=dropout_p)
    if backend in SDPA_KERNELS:
        return sdpa_dense(q_BHNK, k_BHMK, v_BHMK, kernel=SDPA_KERNELS[backend], causal=causal, dropout_p=dropout_p)
    raise ValueError(f"attention backend is {backend!r}, wanted one of {get_args(Backend)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedHeads:
    """Queries, keys and values of B sequences laid one after another; sequence b's queries see sequence b's keys.

    q is (A, H, K), k and v are (A', H, K), of one floating dtype on one device. Raises ValueError if they do not fit
    each other or their packings.
    """

    q_AHK: Tensor
    k_AHK: Tensor
    v_AHK: Tensor
    queries: Packing
    keys: Packing

    def __post_init__(self) -> None:
        _check_dense(*(each_AHK.movedim(0, 1)[None] for each_AHK in (self.q_AHK, self.k_AHK, self.v_AHK)))
        seen = (self.q_AHK.shape[0], self.k_AHK.shape[0])
        if seen != (self.queries.total, self.keys.total) or len(self.queries.lengths) != len(self.keys.lengths):
            wanted = f"queries {self.queries.lengths}, keys {self.keys.lengths}"
            raise ValueError(f"packed attention got {seen[0]} queries and {seen[1]} keys, wanted {wanted}")


def attend_packed(heads: PackedHeads, *, backend: Backend, causal: bool, dropout_p: float) -> Tensor:
    """`attend` for each of several sequences of different lengths at once, (A, H, K) of the queries' dtype.

    `flash` runs one kernel over all of them; the others run one after another, so that memory stays linear in A where
    a kernel's is. Causal attention aligns bottom-right within each sequence. Raises ValueError as `attend` does.
    """
    lengths = list(zip(heads.queries.lengths, heads.keys.lengths, strict=True))
    _check_rules(causal=causal, dropout_p=dropout_p, lengths=lengths)
    if backend == "flash":
        q_AHK, packings = heads.q_AHK, (heads.queries, heads.keys)
        return choose_package(q_AHK).attend_packed(
            (q_AHK, heads.k_AHK, heads.v_AHK), packings=packings, causal=causal, dropout_p=dropout_p
        )
    sequences = zip(
        torch.split(heads.q_AHK, list(heads.queries.lengths)),
        torch.split(heads.k_AHK, list(heads.keys.lengths)),
        torch.split(heads.v_AHK, list(heads.keys.lengths)),
        strict=True,
    )
    parts_1HNK = [
        attend(
            *(each_NHK.transpose(0, 1)[None] for each_NHK in sequence),
            backend=backend,
            causal=causal,
            dropout_p=dropout_p,
        )
        for sequence in sequences
    ]
    return torch.cat(parts_1HNK, dim=2)[0].transpose(0, 1)


def _check_dense(q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor) -> None:
    shapes = f"q {tuple(q_BHNK.shape)}, k {tuple(k_BHMK.shape)}, v {tuple(v_BHMK.shape)}"
    if q_BHNK.ndim != 4 or k_BHMK.ndim != 4 or v_BHMK.ndim != 4:
        raise ValueError(f"attention got {shapes}, wanted three tensors (B, H, tokens, K)")
    b, h, n, k = q_BHNK.shape
    m = k_BHMK.shape[2]
    if k_BHMK.shape != (b, h, m, k) or v_BHMK.shape != (b, h, m, k):
        raise ValueError(f"attention got {shapes}, wanted q (B, H, N, K) and k, v (B, H, M, K) of equal B, H, K")
    if 0 in (b, h, n, m, k):
        raise ValueError(f"attention got {shapes}, wanted no empty axis")
    dtypes = (q_BHNK.dtype, k_BHMK.dtype, v_BHMK.dtype)
    if len(set(dtypes)) > 1 or not q_BHNK.is_floating_point():
        raise ValueError(f"attention got dtypes {dtypes}, wanted one floating dtype")
    devices = (q_BHNK.device, k_BHMK.device, v_BHMK.device)
    if len(set(devices)) > 1:
        raise ValueError(f"attention got devices {devices}, wanted one")


def _check_rules(*, causal: bool, dropout_p: float, lengths: list[tuple[int, int]]) -> None:
    for n, m in lengths:
        if causal and n > m:
            raise ValueError(f"causal attention got {n} queries over {m} keys, wanted N <= M: each query needs a key")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"attention dropout_p is {dropout_p}, wanted 0 <= p < 1")
