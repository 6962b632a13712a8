"""Blocks: the equation, drop path, gradient checkpointing, and a bias that must not matter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.block import Block, DropPath, SelfAttention, Stack, StackConfig, drop_path_rates, init_xavier

CONFIG = StackConfig(width=16, depth=3, heads=4)


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_block_is_pre_norm_with_exact_gelu() -> None:
    torch.manual_seed(0)
    block, x = Block(CONFIG, drop_path=0.0).double(), torch.randn(2, 5, 16, dtype=torch.float64)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)

    def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias

    with torch.no_grad():
        y = x + block.attention(norm(x, block.norm_attention))
        hidden = norm(y, block.norm_mlp) @ block.mlp[0].weight.T + block.mlp[0].bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        torch.testing.assert_close(block(x), y + hidden @ block.mlp[2].weight.T + block.mlp[2].bias)


def test_layer_norm_eps_matters_for_almost_flat_tokens() -> None:
    """1e-6 under the root, not torch's 1e-5: a token of variance 1e-6 comes out with variance one half."""
    token = torch.tensor([1e-3, -1e-3] * 8).expand(1, 1, 16)
    assert Block(CONFIG, drop_path=0.0).norm_mlp(token).square().mean().item() == pytest.approx(0.5, rel=1e-3)


def test_self_attention_splits_heads_as_the_projection_is_laid_out() -> None:
    """Rows 0…D-1 of the projection are queries, then keys, then values; head h owns the h-th K rows of each."""
    torch.manual_seed(0)
    layer, x = SelfAttention(CONFIG), torch.randn(2, 5, 16)
    with torch.no_grad():
        q, k, v = (x @ w.T + b for w, b in zip(layer.qkv.weight.split(16), layer.qkv.bias.split(16), strict=True))
        heads = []
        for h in range(4):
            part = slice(4 * h, 4 * h + 4)
            weights = (q[..., part] @ k[..., part].mT / 2.0).softmax(-1)
            heads.append(weights @ v[..., part])
        torch.testing.assert_close(layer(x), layer.out(torch.cat(heads, dim=-1)))


def test_bias_of_the_keys_changes_nothing() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(CONFIG), torch.randn(2, 5, 16)
    before = layer(x)
    with torch.no_grad():
        layer.qkv.bias[16:32] = torch.randn(16)
    torch.testing.assert_close(layer(x), before, atol=1e-6, rtol=1e-5)


def test_attention_backends_make_the_same_stack() -> None:
    torch.manual_seed(0)
    x, reference = torch.randn(2, 5, 16), Stack(replace(CONFIG, attention="reference"))
    fast = Stack(replace(CONFIG, attention="sdpa"))
    fast.load_state_dict(reference.state_dict())
    torch.testing.assert_close(fast(x), reference(x), atol=1e-5, rtol=1e-4)
    wanted = gradients(reference, x)
    for name, gradient in gradients(fast, x).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-3, rtol=1e-3)


def test_attention_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(replace(CONFIG, attention_dropout=0.5)), torch.randn(2, 5, 16)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_drop_path_zeroes_whole_clips_and_scales_the_others() -> None:
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    per_clip = out.flatten(1)
    assert torch.equal(per_clip.amin(1), per_clip.amax(1))
    torch.testing.assert_close(per_clip[:, 0].unique(), torch.tensor([0.0, 4 / 3]))
    assert (per_clip[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_drop_path_is_off_in_eval() -> None:
    x = torch.randn(8, 2, 3)
    assert DropPath(0.9).eval()(x) is x
    torch.manual_seed(0)
    stack = Stack(replace(CONFIG, drop_path=0.9))
    plain = Stack(CONFIG)
    plain.load_state_dict(stack.state_dict())
    tokens = torch.randn(4, 5, 16)
    assert torch.equal(stack.eval()(tokens), plain.eval()(tokens))
    assert not torch.equal(stack.train()(tokens), plain.train()(tokens))


def test_drop_path_rates_grow_linearly_to_the_last_block() -> None:
    assert drop_path_rates(StackConfig(width=8, depth=3, heads=1, drop_path=0.2)) == pytest.approx([0.0, 0.1, 0.2])
    assert drop_path_rates(StackConfig(width=8, depth=1, heads=1, drop_path=0.2)) == [0.0]
    stack = Stack(StackConfig(width=8, depth=3, heads=1, drop_path=0.2))
    assert [module.p for module in stack.modules() if isinstance(module, DropPath)] == pytest.approx([0.0, 0.1, 0.2])


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_checkpointing_gives_the_same_gradients(drop_path: float) -> None:
    torch.manual_seed(0)
    x, plain = torch.randn(6, 5, 16), Stack(replace(CONFIG, drop_path=drop_path))
    saving = Stack(replace(CONFIG, drop_path=drop_path, checkpoint_blocks=True))
    saving.load_state_dict(plain.state_dict())
    torch.manual_seed(1)
    wanted = gradients(plain, x)
    torch.manual_seed(1)
    seen = gradients(saving, x)
    assert wanted.keys() == seen.keys()
    for name, gradient in seen.items():
        torch.testing.assert_close(gradient, wanted[name])


def test_checkpointing_computes_the_blocks_again() -> None:
    calls = {"forward": 0}

    def count(*_: object) -> None:
        calls["forward"] += 1

    for saving, wanted in ((False, 3), (True, 6)):
        calls["forward"] = 0
        stack = Stack(replace(CONFIG, checkpoint_blocks=saving))
        for block in stack.blocks:
            block.attention.register_forward_hook(count)
        stack(torch.randn(1, 5, 16)).sum().backward()
        assert calls["forward"] == wanted


def test_init_is_xavier_with_zero_biases() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(300, 100)
    init_xavier(layer)
    assert not layer.bias.any()
    assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 400), rel=0.01)
    init_xavier(nn.Linear(3, 3, bias=False))


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 0},
        {"width": 18},
        {"heads": 0},
        {"mlp_ratio": 0.0},
        {"drop_path": 1.0},
        {"attention_dropout": -0.1},
        {"attention": "flash"},
    ],
)
def test_config_refuses_what_makes_no_network(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"stack: {next(iter(change))} is .* wanted"):
        replace(CONFIG, **change)
