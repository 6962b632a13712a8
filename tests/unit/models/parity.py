"""What tests of equal functions share: weights that hide nothing, gradients by name, the largest difference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


def gradients(model: nn.Module) -> Weights:
    """The gradients of all parameters that have one, by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def randomise(model: nn.Module, *, seed: int = 0) -> None:
    """Weights of every parameter such that no term of the network is hidden by zeros or ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)


def largest_difference(ours: Weights, theirs: Weights) -> float:
    """The largest absolute difference between two sets of the same names."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
