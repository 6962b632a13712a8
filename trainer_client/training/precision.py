"""In which precision a run computes, and the scale that keeps float16's gradients in its range; knows no model.

Weights, optimizer and losses are float32 in all of them. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from framefeed_models.own_part import own_part

PrecisionName = Literal["bf16", "fp16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRule:
    """How the scale of float16's loss moves (Micikevicius et al. 2018, §3.2); torch's GradScaler has the same."""

    initial: float = 65536.0
    growth: float = 2.0
    backoff: float = 0.5
    growth_every: int = 2000


class Precision:
    """The dtype of matrix products, and for fp16 a scale of the loss that halves when gradients overflow.

    The scale is the device's: an overflow is known there, and the host reads it with the step's other numbers.
    torch's GradScaler decides by itself which steps to skip, by each rank's own gradients; a run's step decides by the
    norm of all of them.
    """

    def __init__(self, name: PrecisionName, *, device: torch.device, rule: ScaleRule | None = None) -> None:
        self.name, self.device, self._rule = name, device, rule or ScaleRule()
        self.scale = torch.full((), self._rule.initial if name == "fp16" else 1.0, device=device)
        self._good_steps = torch.zeros((), device=device)

    def autocast(self) -> AbstractContextManager[object]:
        """Within it matrix products run in the dtype."""
        return torch.autocast(self.device.type, dtype=DTYPES[self.name], enabled=self.name != "fp32")

    def scaled(self, loss: Tensor) -> Tensor:
        """What to take the gradients of."""
        return loss * self.scale if self.name == "fp16" else loss

    @torch.no_grad()
    def unscale(self, gradients: Iterable[Tensor]) -> None:
        """Turn gradients of the scaled loss into those of the loss, in place."""
        if self.name == "fp16":
            torch._foreach_mul_([own_part(gradient) for gradient in gradients], 1.0 / self.scale)

    @torch.no_grad()
    def update(self, overflowed: Tensor) -> None:
        """Move the scale after a step: down if it overflowed (a scalar, 0 or 1), up after many that did not."""
        if self.name != "fp16":
            return
        good_steps = (self._good_steps + 1) * (1 - overflowed)
        grows = good_steps >= self._rule.growth_every
        grown = torch.where(grows, self.scale * self._rule.growth, self.scale)
        self.scale.copy_(torch.where(overflowed > 0, self.scale * self._rule.backoff, grown))
        self._good_steps.copy_(torch.where(grows, torch.zeros_like(good_steps), good_steps))

    def tensors(self) -> dict[str, Tensor]:
        """The live scale and count of steps since it moved; nothing where nothing is scaled."""
        return {"scale": self.scale, "good_steps": self._good_steps} if self.name == "fp16" else {}
