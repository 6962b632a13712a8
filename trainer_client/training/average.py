"""A moving average of weights (Polyak & Juditsky 1992); it knows no task, and moves on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from framefeed.errors import BadInput
from framefeed_models.own_part import own_part


class Average:
    """average ← decay · average + (1 - decay) · weight, for each parameter that learns, after each optimizer step.

    With decay 0 nothing is kept. Weights that FSDP2 has divided are averaged in the same parts.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        """Raises BadInput for a decay outside [0, 1)."""
        if not 0.0 <= decay < 1.0:
            raise BadInput(f"is {decay}, wanted 0 (no average) <= decay < 1", of="average", field="decay")
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
