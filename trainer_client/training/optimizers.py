"""AdamW, SGD and Lion with decay where it belongs, rates by layer, and a step that can be skipped on the device.

It knows parameters by name and shape, no tasks, data or schedules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from framefeed_models.own_part import own_part

OptimizerName = Literal["adamw", "sgd", "lion"]

_NEVER_DECAYED = re.compile(r"(^|\.)(bias|pos_embed|position|positional_embedding)[^.]*$")
_BLOCK = re.compile(r"(?:^|\.)encoder\.(?:stack\.)?blocks\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)encoder\.(embedding|norm_pre)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and how it runs. The learning rate is the schedule's.

    adamw: Loshchilov & Hutter 2019, defaults as VideoMAE pre-trains; sgd: with momentum `betas[0]`; lion: Chen et al.
    2023. `layer_decay` below 1 multiplies the rate of block i of L with layer_decay^(L - i), of what stands before the
    blocks with layer_decay^(L + 1) (Bao et al. 2022, BEiT). Raises BadInput for values it cannot run with.
    """

    name: OptimizerName = "adamw"
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in get_args(OptimizerName):
            raise BadInput(f"optimizer: name is {show_value(self.name)}, wanted one of {get_args(OptimizerName)}")
        if not 0.0 <= self.weight_decay < math.inf:
            raise BadInput(f"is {self.weight_decay}, wanted a finite number >= 0", of=self.name, field="weight_decay")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise BadInput(f"is {self.betas}, wanted both in [0, 1)", of=self.name, field="betas")
        if not 0.0 < self.eps < math.inf:
            raise BadInput(f"is {self.eps}, wanted a finite number > 0", of=self.name, field="eps")
        if not 0.0 < self.layer_decay <= 1.0:
            raise BadInput(f"is {self.layer_decay}, wanted 0 < layer_decay <= 1", of=self.name, field="layer_decay")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer over the model's trainable parameters; its rate is 0 until `set_rates`.

    Its steps can be skipped on the device. Build it after the model is spread over ranks.
    Raises BadInput if the model has nothing to train.
    """
    groups = param_groups(model, weight_decay=config.weight_decay, layer_decay=config.layer_decay)
    if not groups:
        raise BadInput(f"{config.name}: the model has no trainable parameter, wanted at least one")
    if config.name == "lion":
        return Lion(groups, betas=config.betas)
    if config.name == "sgd":
        sgd = torch.optim.SGD(groups, lr=0.0, momentum=config.betas[0], fused=True)
        for group in sgd.param_groups:  # a first step that is skipped would leave what torch makes here undefined
            for parameter in group["params"]:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def param_groups(model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """The trainable parameters by decay, by layer and by being divided among ranks or not, in the model's order.

    Never decayed: vectors and scalars (biases, norms, mask tokens), and position embeddings of any shape by name.
    Each group keeps its `rate_scale`, by which `set_rates` multiplies.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    depth = 1 + max((int(found[1]) for name, _ in named if (found := _BLOCK.search(name))), default=-1)
    groups: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        decays = parameter.ndim >= 2 and not _NEVER_DECAYED.search(name)
        layer = layer_of(name, depth=depth) if layer_decay < 1.0 else depth + 1
        # One kernel over a group takes weights that FSDP2 has divided, or whole ones, not both.
        groups.setdefault((not decays, layer, isinstance(parameter, DTensor)), []).append(parameter)
    return [
        {
            "params": groups[kept, layer, divided],
            "weight_decay": 0.0 if kept else weight_decay,
            "rate_scale": layer_decay ** (depth + 1 - layer),
        }
        for kept, layer, divided in sorted(groups)
    ]


def layer_of(name: str, *, depth: int) -> int:
    """The layer of an encoder's parameter: 0 before the blocks, i + 1 in block i, depth + 1 behind them (AVION)."""
    if _EMBEDDING.search(name):
        return 0
    found = _BLOCK.search(name)
    return int(found[1]) + 1 if found else depth + 1


def set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate times its own scale, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_scale", 1.0)


class Lion(torch.optim.Optimizer):
    """u = sign(β1 m + (1 - β1) g); w ← w - lr (u + λ w); m ← β2 m + (1 - β2) g (Chen et al. 2023, algorithm 2)."""

    def __init__(self, params: Iterable[dict[str, Any]], *, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": 0.0, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the weights; not where `found_inf`, if it is set, is 1. A closure is refused."""
        if closure is not None:
            raise ValueError("Lion: got a closure, wanted none")
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group, found_inf)

    def _move(self, parameter: Tensor, group: dict[str, Any], found_inf: Tensor | None) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        gradient, weight, momentum = (own_part(each) for each in (parameter.grad, parameter, state["momentum"]))
        beta1, beta2 = group["betas"]
        moved = weight * (1.0 - group["lr"] * group["weight_decay"])
        moved -= group["lr"] * momentum.lerp(gradient, 1.0 - beta1).sign()
        followed = momentum.lerp(gradient, 1.0 - beta2)
        if found_inf is not None:
            skips = found_inf > 0
            moved, followed = torch.where(skips, weight, moved), torch.where(skips, momentum, followed)
        weight.copy_(moved)
        momentum.copy_(followed)
