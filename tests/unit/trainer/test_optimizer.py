"""AdamW's groups by name and shape, its step against the equation, clipping, and the refusal of what is not finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefeed.errors import BadInput, FramefeedError
from models.videomae import PRESETS, VideoMAE
from trainer_client.training.optimizers import (
    AdamWConfig,
    NonFiniteStep,
    build_adamw,
    clip_gradients,
    param_groups,
    require_finite,
    set_learning_rate,
)


class Sample(nn.Module):
    """One of each kind of parameter that the rule tells apart."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.scale = nn.Parameter(torch.ones(()))
        self.position_embedding = nn.Parameter(torch.ones(5, 3))
        self.pos_embed = nn.Parameter(torch.ones(1, 5, 3))
        self.positional_embedding = nn.Parameter(torch.ones(5, 3))
        self.temporal_embedding = nn.Parameter(torch.ones(5, 3))
        self.composition = nn.Parameter(torch.ones(3, 3))
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)


def names_of(model: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    wanted = {id(parameter) for parameter in parameters}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def test_decays_matrices_and_nothing_else() -> None:
    model = Sample()
    decayed, kept = param_groups(model, weight_decay=0.05)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    assert names_of(model, decayed["params"]) == {"linear.weight", "temporal_embedding", "composition"}
    assert names_of(model, kept["params"]) == {
        "linear.bias",
        "norm.weight",
        "norm.bias",
        "scale",
        "position_embedding",
        "pos_embed",
        "positional_embedding",
    }


def test_groups_of_videomae_hold_every_parameter_once() -> None:
    model = VideoMAE(PRESETS["tiny"])
    decayed, kept = param_groups(model, weight_decay=0.05)
    grouped = [id(p) for group in (decayed, kept) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert all(p.ndim == 2 for p in decayed["params"])
    assert "mask_token_D" in names_of(model, kept["params"])
    assert "encoder.norm.weight" in names_of(model, kept["params"])


def test_shared_parameters_are_stepped_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    decayed, _ = param_groups(model, weight_decay=0.1)
    assert len(decayed["params"]) == 1


def test_first_step_is_the_equation() -> None:
    """After one step both moments are bias-corrected to g and g²: w ← w (1 - lr wd) - lr g / (|g| + eps)."""
    model = nn.Linear(2, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -4.0]]))
        model.bias.fill_(3.0)
    optimizer = build_adamw(model, AdamWConfig(weight_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    model.weight.grad, model.bias.grad = torch.tensor([[0.3, -7.0]]).double(), torch.tensor([5.0]).double()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[2 * 0.95 - 0.1, -4 * 0.95 + 0.1]]).double())
    torch.testing.assert_close(model.bias.detach(), torch.tensor([2.9]).double())


def test_second_moment_forgets_as_fast_as_told() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = build_adamw(model, AdamWConfig(weight_decay=0.0, betas=(0.9, 0.95)))
    for gradient in (1.0, 0.0):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    state = optimizer.state[model.weight]
    assert state["exp_avg"].item() == pytest.approx(0.1 * 0.9)
    assert state["exp_avg_sq"].item() == pytest.approx(0.05 * 0.95)


def test_rate_is_zero_until_it_is_set() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    optimizer = build_adamw(model, AdamWConfig())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, before)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_refuses_a_model_with_nothing_to_train() -> None:
    with pytest.raises(BadInput, match="no trainable parameter"):
        build_adamw(nn.Linear(2, 2).requires_grad_(False), AdamWConfig())


@pytest.mark.parametrize(
    "values", [{"weight_decay": -0.1}, {"weight_decay": math.nan}, {"betas": (0.9, 1.0)}, {"eps": 0.0}]
)
def test_config_refuses(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"AdamW: {next(iter(values))}"):
        AdamWConfig(**values)


def with_gradients(*gradients: list[float] | None) -> list[nn.Parameter]:
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(2))
        parameter.grad = None if gradient is None else torch.tensor(gradient)
        parameters.append(parameter)
    return parameters


def gradients_of(parameters: list[nn.Parameter]) -> list[list[float]]:
    return [p.grad.tolist() for p in parameters if p.grad is not None]


def test_clips_all_gradients_by_their_common_norm() -> None:
    parameters = with_gradients([3.0, 0.0], None, [0.0, 4.0])
    assert clip_gradients(parameters, max_norm=1.0).item() == pytest.approx(5.0)
    first, second = gradients_of(parameters)
    assert first == pytest.approx([0.6, 0.0], abs=1e-5)
    assert second == pytest.approx([0.0, 0.8], abs=1e-5)


@pytest.mark.parametrize("max_norm", [5.1, None])
def test_leaves_gradients_below_the_limit_alone(max_norm: float | None) -> None:
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0])
    assert clip_gradients(iter(parameters), max_norm=max_norm).item() == pytest.approx(5.0)
    assert gradients_of(parameters) == [[3.0, 0.0], [0.0, 4.0]]


def test_clipping_refuses_no_gradients_and_bad_limits() -> None:
    with pytest.raises(BadInput, match="no parameter has a gradient"):
        clip_gradients(with_gradients(None), max_norm=1.0)
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(BadInput, match="max_norm"):
            clip_gradients(with_gradients([1.0, 0.0]), max_norm=limit)


def test_finite_values_come_back_as_floats() -> None:
    loss = torch.tensor(0.5, requires_grad=True)
    assert require_finite(step=3, loss=loss, grad_norm=torch.tensor(2.0)) == (0.5, 2.0)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (-math.inf, math.nan)])
def test_refuses_a_step_that_is_not_finite(loss: float, norm: float) -> None:
    with pytest.raises(NonFiniteStep, match=f"step 41307: loss is {loss}, gradient norm is {norm}, wanted finite"):
        require_finite(step=41307, loss=torch.tensor(loss), grad_norm=torch.tensor(norm))
    assert issubclass(NonFiniteStep, FramefeedError)


def test_a_bad_clip_is_refused_before_it_reaches_the_weights() -> None:
    model = nn.Linear(2, 1)
    optimizer = build_adamw(model, AdamWConfig())
    set_learning_rate(optimizer, 0.1)
    before = [p.detach().clone() for p in model.parameters()]

    def step(x: Tensor) -> None:
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norm = clip_gradients(model.parameters(), max_norm=1.0)
        require_finite(step=0, loss=loss, grad_norm=norm)
        optimizer.step()

    with pytest.raises(NonFiniteStep):
        step(torch.tensor([[1.0, math.nan]]))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    step(torch.ones(1, 2))
    assert not torch.equal(before[0], model.weight)
