"""Blocks: the equation, drop path, gradient checkpointing, and a bias that must not matter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefeed_models.block import (
    VIT_STACKS,
    Block,
    Checkpointing,
    DropPath,
    LayerScale,
    QuickGELU,
    SelfAttention,
    Stack,
    StackConfig,
    drop_path_rates,
    init_truncated_normal,
    init_xavier,
)
from framefeed_models.packing import make_packing

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
    constant = StackConfig(width=8, depth=3, heads=1, drop_path=0.2, drop_path_rule="constant")
    assert drop_path_rates(constant) == [0.2, 0.2, 0.2]
    stack = Stack(StackConfig(width=8, depth=3, heads=1, drop_path=0.2))
    assert [module.p for module in stack.modules() if isinstance(module, DropPath)] == pytest.approx([0.0, 0.1, 0.2])


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
@pytest.mark.parametrize("checkpointing", ["block", "sqrt"])
def test_checkpointing_gives_the_same_gradients(checkpointing: Checkpointing, drop_path: float) -> None:
    torch.manual_seed(0)
    x, plain = torch.randn(6, 5, 16), Stack(replace(CONFIG, drop_path=drop_path))
    saving = Stack(replace(CONFIG, drop_path=drop_path, checkpointing=checkpointing))
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

    for checkpointing, wanted in (("none", 3), ("block", 6), ("sqrt", 6)):
        calls["forward"] = 0
        stack = Stack(replace(CONFIG, checkpointing=checkpointing))
        for block in stack.blocks:
            block.attention.register_forward_hook(count)
        stack(torch.randn(1, 5, 16)).sum().backward()
        assert calls["forward"] == wanted


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Bytes of activations that wait for the backward pass, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = model(x)
    assert out.requires_grad
    return sum(kept.values())


def test_checkpointing_keeps_what_it_says() -> None:
    """Of 9 blocks: each block's input, or that of each of √9 groups; x itself is the first."""
    x = torch.randn(2, 50, 16, requires_grad=True)
    config, one = replace(CONFIG, depth=9), x.numel() * 4
    assert kept_bytes(Stack(replace(config, checkpointing="block")), x) == 9 * one
    assert kept_bytes(Stack(replace(config, checkpointing="sqrt")), x) == 3 * one
    assert kept_bytes(Stack(config), x) > 100 * one


def test_checkpointing_costs_nothing_without_gradients() -> None:
    stack, calls = Stack(replace(CONFIG, checkpointing="sqrt")).eval(), []
    stack.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        stack(torch.randn(1, 5, 16))
    assert calls == [1]


def test_a_causal_stack_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    stack, x = Stack(replace(CONFIG, causal=True)).eval(), torch.randn(1, 6, 16)
    other = x.clone()
    other[:, 4] += 1.0
    with torch.no_grad():
        same = [torch.equal(stack(x)[:, n], stack(other)[:, n]) for n in range(6)]
    assert same == [True] * 4 + [False] * 2


def test_layer_scale_is_a_learned_factor_of_each_branch() -> None:
    torch.manual_seed(0)
    scaled, plain, x = Stack(replace(CONFIG, layer_scale=0.1)), Stack(CONFIG), torch.randn(2, 5, 16)
    missing = scaled.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert {name.split(".", 2)[2] for name in missing.missing_keys} == {"scale_attention.scale_D", "scale_mlp.scale_D"}
    block, reference = scaled.blocks[0], plain.blocks[0]
    with torch.no_grad():
        y = x + 0.1 * reference.attention(reference.norm_attention(x))
        torch.testing.assert_close(block(x), y + 0.1 * reference.mlp(reference.norm_mlp(y)))
    assert isinstance(block.scale_mlp, LayerScale)
    assert block.scale_mlp.scale_D.requires_grad


def test_quick_gelu_is_its_equation_and_not_gelu() -> None:
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + (-1.702 * x).exp()))
    assert (QuickGELU()(x) - nn.GELU()(x)).abs().max() > 0.01
    block = Block(replace(CONFIG, activation="quick_gelu"), drop_path=0.0)
    assert isinstance(block.mlp[1], QuickGELU)


def test_packed_clips_are_blocked_one_by_one() -> None:
    torch.manual_seed(0)
    stack, lengths = Stack(CONFIG).eval(), [3, 1, 6]
    clips = [torch.randn(1, n, 16) for n in lengths]
    packed = stack(torch.cat(clips, dim=1), make_packing(lengths, device=torch.device("cpu")))
    for seen, clip in zip(packed.split(lengths, dim=1), clips, strict=True):
        torch.testing.assert_close(seen, stack(clip), atol=1e-5, rtol=1e-4)


def test_drop_path_drops_whole_packed_clips() -> None:
    torch.manual_seed(0)
    packing = make_packing([2, 5] * 500, device=torch.device("cpu"))
    out = DropPath(0.25).train()(torch.ones(1, packing.total, 3), packing)[0]
    clips = out.split(packing.lengths)
    assert all(float(clip.min()) == float(clip.max()) for clip in clips)
    assert sum(not clip.any() for clip in clips) / 1000 == pytest.approx(0.25, abs=0.04)


def test_vit_sizes_are_the_fields() -> None:
    sizes = {name: (stack.width, stack.depth, stack.heads) for name, stack in VIT_STACKS.items()}
    assert sizes == {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16)}


def test_init_is_a_truncated_normal_with_zero_biases() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(300, 100)
    init_truncated_normal(layer)
    assert not layer.bias.any()
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.02)
    norm = nn.LayerNorm(4)
    init_truncated_normal(norm)
    assert norm.weight.tolist() == [1.0] * 4


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
        {"attention": "flash9"},
        {"activation": "relu"},
        {"norm_eps": 0.0},
        {"checkpointing": "all"},
        {"drop_path_rule": "random"},
    ],
)
def test_config_refuses_what_makes_no_network(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"stack: {next(iter(change))} is .* wanted"):
        replace(CONFIG, **change)
