"""AdamW's groups by name and shape, its step against the equation, clipping, and the refusal of what is not finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefeed.errors import BadInput
from framefeed_models.block import StackConfig
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import PRESETS, VideoMAE
from framefeed_models.vit import ViTConfig
from trainer_client.training.optimizers import (
    Lion,
    OptimizerConfig,
    OptimizerName,
    build_optimizer,
    param_groups,
    set_rates,
)
from trainer_client.training.parallel import Parallel
from trainer_client.training.step import skip_if


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
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.5))
    set_rates(optimizer, 0.1)
    model.weight.grad, model.bias.grad = torch.tensor([[0.3, -7.0]]).double(), torch.tensor([5.0]).double()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[2 * 0.95 - 0.1, -4 * 0.95 + 0.1]]).double())
    torch.testing.assert_close(model.bias.detach(), torch.tensor([2.9]).double())


def test_second_moment_forgets_as_fast_as_told() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.0, betas=(0.9, 0.95)))
    for gradient in (1.0, 0.0):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    state = optimizer.state[model.weight]
    assert state["exp_avg"].item() == pytest.approx(0.1 * 0.9)
    assert state["exp_avg_sq"].item() == pytest.approx(0.05 * 0.95)


def test_rate_is_zero_until_it_is_set() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, OptimizerConfig())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, before)
    set_rates(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_refuses_a_model_with_nothing_to_train() -> None:
    with pytest.raises(BadInput, match="no trainable parameter"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimizerConfig())


@pytest.mark.parametrize(
    "values",
    [{"weight_decay": -0.1}, {"weight_decay": math.nan}, {"betas": (0.9, 1.0)}, {"eps": 0.0}, {"layer_decay": 0.0}],
)
def test_config_refuses(values: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"adamw: {next(iter(values))}"):
        OptimizerConfig(**values)


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
    assert Parallel().clip(parameters, max_norm=1.0).item() == pytest.approx(5.0)
    first, second = gradients_of(parameters)
    assert first == pytest.approx([0.6, 0.0], abs=1e-5)
    assert second == pytest.approx([0.0, 0.8], abs=1e-5)


@pytest.mark.parametrize("max_norm", [5.1, None])
def test_leaves_gradients_below_the_limit_alone(max_norm: float | None) -> None:
    parameters = with_gradients([3.0, 0.0], [0.0, 4.0])
    assert Parallel().clip(iter(parameters), max_norm=max_norm).item() == pytest.approx(5.0)
    assert gradients_of(parameters) == [[3.0, 0.0], [0.0, 4.0]]


def test_clipping_refuses_no_gradients_and_bad_limits() -> None:
    with pytest.raises(BadInput, match="no parameter has a gradient"):
        Parallel().clip(with_gradients(None), max_norm=1.0)
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(BadInput, match="max_norm"):
            Parallel().clip(with_gradients([1.0, 0.0]), max_norm=limit)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
@pytest.mark.parametrize("first", [0, 2])
def test_a_step_is_skipped_where_the_device_says_so(name: OptimizerName, first: int) -> None:
    """Weights and states stay, the first time too, and the steps after it are those of a run without it."""

    def run(gradients: list[float]) -> Tensor:
        model = nn.Linear(2, 1)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[2.0, -4.0]]))
        optimizer = build_optimizer(model, OptimizerConfig(name=name))
        set_rates(optimizer, 0.1)
        for gradient in gradients:
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, gradient)
            skip_if(optimizer, torch.tensor(0.0 if math.isfinite(gradient) else 1.0))
            before = model.weight.detach().clone()
            optimizer.step()
            assert torch.equal(before, model.weight) is not math.isfinite(gradient)
        return model.weight.detach()

    sound = [0.5, -0.25, 2.0, 1.0]
    assert torch.equal(run([*sound[:first], math.nan, *sound[first:]]), run(sound))


def test_lion_is_the_equation() -> None:
    """Two steps by hand: u = sign(0.9 m + 0.1 g), w ← w - lr (u + λ w), m ← 0.99 m + 0.01 g."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Lion([{"params": [weight], "weight_decay": 0.5}], betas=(0.9, 0.99))
    set_rates(optimizer, 0.1)
    weight.grad = torch.tensor([3.0, -1.0])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([1.0 - 0.1 * 1.5, -2.0 + 0.1 * 2.0]))
    weight.grad = torch.tensor([-0.1, 0.05])  # 0.9 · 0.03 - 0.01 > 0: the momentum's sign wins
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([0.85 - 0.1 * 1.425, -1.8 + 0.1 * 1.9]))
    torch.testing.assert_close(optimizer.state[weight]["momentum"], torch.tensor([0.0287, -0.0094]))


def test_sgd_is_the_equation() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = build_optimizer(model, OptimizerConfig(name="sgd", weight_decay=0.5))
    set_rates(optimizer, 0.1)
    for _ in range(2):
        model.weight.grad = torch.tensor([[1.0]])
        optimizer.step()
    second = 0.9 * 1.5 + 1.0 + 0.5 * 0.85
    assert model.weight.item() == pytest.approx(0.85 - 0.1 * second)


def test_rates_by_layer_stay_apart_whatever_the_schedule_says() -> None:
    """AVION's ids of ViT-B: embeddings 0, block i is i + 1, what stands behind is 13; the rate is .75^(13 - id)."""
    stack = StackConfig(width=8, depth=12, heads=2)
    encoder = ViTConfig(grid=TubeletGrid(frames=2, height_px=8, width_px=8, patch_px=4), stack=stack)
    model = Classifier(ClassifierConfig(encoder=encoder, heads={"action": 3}))
    optimizer = build_optimizer(model, OptimizerConfig(layer_decay=0.75))
    rates = {}
    for rate in (1.0, 1e-3):
        set_rates(optimizer, rate)
        for group in optimizer.param_groups:
            rates |= dict.fromkeys(names_of(model, group["params"]), group["lr"] / rate)
        assert rates["encoder.embedding.projection.weight"] == pytest.approx(0.75**13)
        assert rates["encoder.stack.blocks.0.mlp.0.weight"] == pytest.approx(0.75**12)
        assert rates["encoder.stack.blocks.11.norm_mlp.bias"] == pytest.approx(0.75)
        assert rates["heads.action.weight"] == rates["encoder.norm.bias"] == 1.0
    assert len(rates) == len(list(model.parameters()))
