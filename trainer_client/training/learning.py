"""How fast and how far weights move: the options of a recipe's optimizer, and what the loop makes of them.

It knows no task and no data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from framefeed.errors import BadInput
from trainer_client.training.optimizers import OptimizerConfig, OptimizerName, build_optimizer
from trainer_client.training.schedules import WarmupCosine, scale_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """An optimizer, the rate of each of its steps, and the norm that gradients are clipped to (None: not)."""

    optimizer: torch.optim.Optimizer
    schedule: WarmupCosine
    clip_norm: float | None


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """What a recipe's user chooses about learning."""

    lr: float | None = None
    """Peak learning rate. Default: --base-lr x global batch / --lr-clips."""
    base_lr: float = 1.5e-4
    """Peak learning rate of a global batch of --lr-clips clips, scaled linearly to the batch; not used with --lr."""
    lr_clips: int = 256
    """The global batch that --base-lr is said for."""
    start_lr: float = 1e-6
    """Learning rate of the first step, at most the peak; scaled as the peak is, so not with --lr."""
    end_lr: float = 1e-5
    """Learning rate at the end, at most the peak; scaled as the peak is, so not with --lr."""
    warmup: float = 0.1
    """Share of all steps in which the rate climbs to its peak; half a cosine takes it down again."""
    optimizer: OptimizerName = "adamw"
    """What moves the weights; sgd has momentum."""
    weight_decay: float = 0.05
    """Decay of weight matrices; biases, norms and tokens do not decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of the mean and the square of gradients (lion: of its two means; sgd: the first is momentum)."""
    layer_decay: float = 1.0
    """Each block of the encoder learns at so much of the rate of the block above it; 1 is all at one rate."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 does not clip."""
    average_decay: float = 0.0
    """Keep a moving average of the weights with this decay (0.9999, say); 0 keeps none."""

    def __post_init__(self) -> None:
        for name in ("lr", "base_lr", "start_lr", "end_lr"):
            value, least = getattr(self, name), "more than 0" if name in ("lr", "base_lr") else "0 or more"
            if value is not None and not (0 <= value < math.inf and (value or least == "0 or more")):
                raise BadInput(f"--{name.replace('_', '-')} is {value:g}, wanted {least} and finite")
        if self.lr_clips < 1:
            raise BadInput(f"--lr-clips is {self.lr_clips}, wanted at least 1")
        if not 0 <= self.warmup <= 1:
            raise BadInput(f"--warmup is {self.warmup:g}, wanted a share of the steps, 0 to 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise BadInput(f"--betas is {self.betas[0]:g} {self.betas[1]:g}, wanted both 0 or more and less than 1")
        if not 0 <= self.weight_decay < math.inf:
            raise BadInput(f"--weight-decay is {self.weight_decay:g}, wanted 0 or more and finite")
        if not 0 < self.layer_decay <= 1:
            raise BadInput(f"--layer-decay is {self.layer_decay:g}, wanted more than 0, at most 1")
        if not 0 <= self.average_decay < 1:
            raise BadInput(f"--average-decay is {self.average_decay:g}, wanted 0 or more and less than 1")
        if not self.clip_norm >= 0:
            raise BadInput(f"--clip-norm is {self.clip_norm:g}, wanted 0 or more")

    def build(self, model: nn.Module, *, steps: int, batch_clips: int) -> Learning:
        """The optimizer over the model, warm-up and cosine over `steps`. Raises BadInput for what makes none."""
        scale = 1.0
        if self.lr is None:
            scale = scale_rate(1.0, batch_clips=batch_clips, reference_clips=self.lr_clips)
        peak = self.base_lr * scale if self.lr is None else self.lr
        return Learning(
            optimizer=build_optimizer(model, self.moving()),
            schedule=WarmupCosine(
                peak=peak,
                warmup_steps=round(self.warmup * steps),
                total_steps=steps,
                start=min(self.start_lr * scale, peak),
                end=min(self.end_lr * scale, peak),
            ),
            clip_norm=self.clip_norm or None,
        )

    def moving(self) -> OptimizerConfig:
        """What of it is the optimizer's. Raises BadInput for values it cannot run with."""
        return OptimizerConfig(
            name=self.optimizer, weight_decay=self.weight_decay, betas=self.betas, layer_decay=self.layer_decay
        )
