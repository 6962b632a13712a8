"""A moving average of weights (Polyak & Juditsky 1992); it knows no task, and moves on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from framefeed.errors import BadInput
from models.own_part import own_part


class Average:
    """average ← decay · average + (1 - decay) · weight, for each parameter that learns, after each optimizer step.

    With decay 0 nothing is kept. Weights that FSDP2 has divided are averaged in the same parts.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        """Raises BadInput for a decay outside [0, 1)."""
        if not 0.0 <= decay < 1.0:
            raise BadInput(f"average: decay is {decay}, wanted 0 (no average) <= decay < 1")
        self.decay = decay
        learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad] if decay else []
        self._weights = dict(learned)
        self.averages: dict[str, Tensor] = {name: p.detach().clone() for name, p in learned}

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in."""
        if self.averages:
            averages = [own_part(tensor) for tensor in self.averages.values()]
            torch._foreach_lerp_(averages, [own_part(p.detach()) for p in self._weights.values()], 1.0 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the averages as its weights: for an evaluation or an export."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._weights.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, whole. A collective where weights are divided."""
        return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in self.averages.items()}

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Go on with these. Raises BadInput if they are of other parameters."""
        if averages.keys() != self.averages.keys():
            wrong = sorted(averages.keys() ^ self.averages.keys())
            raise BadInput(f"average: the state has other parameters ({', '.join(wrong[:3])}…), wanted the model's")
        for name, mine in self.averages.items():
            theirs = averages[name].to(mine.device)
            mine.copy_(
                distribute_tensor(theirs, mine.device_mesh, mine.placements) if isinstance(mine, DTensor) else theirs
            )
