"""CMAE's heads and contrastive loss over the rows of all clips; they know no encoder and no processes.

Axes: B clips of the whole batch, D encoder width, E width of the contrastive space.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

BATCH_NORM_EPS = 1e-6


class CMAEHeads(nn.Module):
    """online → projection → prediction, target → projection, weight · InfoNCE between them (Huang et al. 2022, §3.3).

    The statistics of the batch norms are those of the rows that `forward` is given, in training as in eval: give it
    the rows of all processes and micro-batches, and they are what synchronised batch norm finds, whatever the split.
    The target's projection has no gradient and follows by `CMAE.update_target`.
    """

    def __init__(self, width: int, *, hidden: int, joint: int, temperature: float, weight: float) -> None:
        super().__init__()
        self.temperature, self.weight = temperature, weight
        self.projector = _head(width, hidden=hidden, out=joint)
        self.predictor = _head(joint, hidden=hidden, out=joint)
        self.target_projector = deepcopy(self.projector).requires_grad_(requires_grad=False)

    def forward(self, online_BD: Tensor, target_BD: Tensor) -> Tensor:
        """The contrastive loss, a float32 scalar: the mean over all B rows, with the others as their negatives.

        No gradient reaches the targets. Raises ValueError for rows of which there are not at least 2 of each.
        """
        if online_BD.shape != target_BD.shape or online_BD.ndim != 2 or online_BD.shape[0] < 2:
            seen = f"{tuple(online_BD.shape)} and {tuple(target_BD.shape)}"
            raise ValueError(f"CMAE: rows are {seen}, wanted two of one shape (B, D) with at least 2 clips")
        # Statistics of a batch and sharp logits need more digits than bf16 has.
        with torch.autocast(online_BD.device.type, enabled=False):
            online_BE = self.predictor(self.projector(to_full(online_BD)))
            with torch.no_grad():
                target_BE = self.target_projector(to_full(target_BD))
            return self.weight * info_nce(online_BE, target_BE, temperature=self.temperature)


def info_nce(online_BE: Tensor, target_BE: Tensor, *, temperature: float) -> Tensor:
    """-log(exp(cos(o_b, t_b) / τ) / Σ_c exp(cos(o_b, t_c) / τ)), the mean over b, a float32 scalar.

    InfoNCE (van den Oord et al. 2018, eq. 4) over (B, E) features; the negatives are the other rows.
    """
    cosines_BB = normalize(to_full(online_BE), dim=1) @ normalize(to_full(target_BE), dim=1).T
    return cross_entropy(cosines_BB / temperature, torch.arange(len(online_BE), device=online_BE.device))


def to_full(x: Tensor) -> Tensor:
    """At least float32: what is less becomes float32, float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _head(width: int, *, hidden: int, out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear; no norm behind the last (Huang et al. 2022, §4.1).

    The first bias does not learn: the norm takes the mean away again, so that its true gradient is zero.
    """
    first = nn.Linear(width, hidden)
    nn.init.zeros_(first.bias)
    first.bias.requires_grad = False
    norm = nn.BatchNorm1d(hidden, eps=BATCH_NORM_EPS, track_running_stats=False)
    return nn.Sequential(first, norm, nn.ReLU(), nn.Linear(hidden, out))
