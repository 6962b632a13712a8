"""AdamW with weight decay where it belongs, and the checks around its step; it knows no models, data or schedules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from framefeed.errors import BadInput, FramefeedError

_NEVER_DECAYED = re.compile(r"(^|\.)(bias|pos_embed|position|positional_embedding)[^.]*$")


class NonFiniteStep(FramefeedError):
    """The loss or the gradients of a step are not numbers; the weights are still those of the step before."""

    code = "non_finite_step"


class ParamGroup(TypedDict):
    """One of AdamW's parameter groups."""

    params: list[nn.Parameter]
    weight_decay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamWConfig:
    """AdamW (Loshchilov & Hutter 2019) as VideoMAE pretrains with it. The learning rate is the schedule's.

    Raises BadInput for values that AdamW cannot run with.
    """

    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight_decay < math.inf:
            raise BadInput(f"AdamW: weight_decay is {self.weight_decay}, wanted a finite number >= 0")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise BadInput(f"AdamW: betas are {self.betas}, wanted both in [0, 1)")
        if not 0.0 < self.eps < math.inf:
            raise BadInput(f"AdamW: eps is {self.eps}, wanted a finite number > 0")


def build_adamw(model: nn.Module, config: AdamWConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters; its rate is 0 until `set_learning_rate`.

    Raises BadInput if the model has nothing to train.
    """
    groups = param_groups(model, weight_decay=config.weight_decay)
    if not any(group["params"] for group in groups):
        raise BadInput("AdamW: the model has no trainable parameter, wanted at least one")
    return torch.optim.AdamW(
        [dict(group) for group in groups if group["params"]], lr=0.0, betas=config.betas, eps=config.eps
    )


def param_groups(model: nn.Module, *, weight_decay: float) -> list[ParamGroup]:
    """The trainable parameters, those that decay and those that never do, in the model's order.

    Never decayed: vectors and scalars (biases, norms, mask tokens), and position embeddings of any shape by name.
    """
    decayed, kept = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (kept if parameter.ndim < 2 or _NEVER_DECAYED.search(name) else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], *, max_norm: float | None) -> Tensor:
    """Scale all gradients so that their common L2 norm is at most `max_norm`; the norm before that, a scalar tensor.

    With None the norm is measured only. Does not synchronise with the device.
    Raises BadInput if no parameter has a gradient, or `max_norm` is not positive.
    """
    if max_norm is not None and not max_norm > 0.0:
        raise BadInput(f"gradient clipping: max_norm is {max_norm}, wanted a number > 0, or None not to clip")
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    if not trained:
        raise BadInput("gradient clipping: no parameter has a gradient, wanted a backward pass first")
    norm = get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    if max_norm is not None:
        clip_grads_with_norm_(trained, max_norm, norm)
    return norm


def require_finite(*, step: int, loss: Tensor, grad_norm: Tensor) -> tuple[float, float]:
    """The loss and the gradient norm of a step as floats; call it before the optimizer's step, which would spread them.

    Blocks until the device has computed both: one transfer.
    Raises NonFiniteStep if either is infinite or not a number.
    """
    values = torch.stack((loss.detach().float(), grad_norm.detach().float().to(loss.device)))
    seen_loss, seen_norm = values.tolist()
    if not (math.isfinite(seen_loss) and math.isfinite(seen_norm)):
        raise NonFiniteStep(
            f"step {step}: loss is {seen_loss}, gradient norm is {seen_norm}, wanted finite numbers; "
            "the optimizer was not stepped (lower the learning rate, clip gradients, or look at this step's clips)"
        )
    return seen_loss, seen_norm
