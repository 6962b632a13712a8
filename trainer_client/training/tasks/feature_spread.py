"""How far the features of a batch's clips are apart, by which a collapse shows long before a loss does; knows no task.

Axes: B clips, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

SPREAD, RANK = "feature_std", "feature_rank"

_MOST_CLIPS = 256  # of a batch: the cost is bounded, whatever the batch


@torch.no_grad()
def feature_spread(features_BD: Tensor) -> dict[str, Tensor]:
    """`feature_std` and `feature_rank` of up to 256 clips' features, float32 scalars; waits for nothing.

    feature_std: √D times the mean over features of their standard deviation over clips, of features of length 1: near
    1 where they point everywhere, 0 where all clips have the same (Chen & He 2021, figure 2).
    feature_rank: (Σ λ)² / Σ λ², λ the eigenvalues of the features' covariance: in how many directions clips differ,
    from 1 to min(B - 1, D). It is the effective rank of Roy & Vetterli 2007 with Rényi's entropy of order 2 of the
    squared singular values, which takes no decomposition: with G the centred features' products, (tr G)² / ‖G‖².
    """
    z_BD = normalize(features_BD[:_MOST_CLIPS].float(), dim=1)
    z_BD = z_BD - z_BD.mean(dim=0)
    products_BB = z_BD @ z_BD.T
    spread = z_BD.shape[1] ** 0.5 * z_BD.square().mean(dim=0).sqrt().mean()
    rank = products_BB.trace().square() / products_BB.square().sum().clamp_min(1e-20)
    return {SPREAD: spread, RANK: rank}
