"""The text tower: its feature is the end token's, nothing after the end matters, and bad tokens are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from framefeed_models.block import StackConfig
from framefeed_models.text import TextConfig, TextTransformer

CONFIG = TextConfig(
    stack=StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0, norm_eps=1e-5, causal=True), vocabulary=50, context=10
)
END = 49


def make_model() -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(CONFIG).eval()


def make_tokens() -> Tensor:
    return torch.tensor([[48, 3, 7, END, 0, 0, 0, 0], [48, 5, 6, 7, 8, 9, 10, END]])


def test_the_feature_is_the_end_tokens() -> None:
    model, tokens = make_model(), make_tokens()
    with torch.no_grad():
        x = model.norm(model.stack(model.token_embedding(tokens) + model.position_LD[:8]))
        torch.testing.assert_close(model(tokens), torch.stack((x[0, 3], x[1, 7])))


def test_what_stands_after_the_end_changes_nothing() -> None:
    model, tokens = make_model(), make_tokens()
    other = tokens.clone()
    other[0, 4:] = 17
    with torch.no_grad():
        torch.testing.assert_close(model(other), model(tokens))
        torch.testing.assert_close(model(tokens[:1, :4]), model(tokens[:1]))
        other[0, 1] = 4
        assert not torch.allclose(model(other)[0], model(tokens)[0], atol=1e-4)


def test_starts_with_clips_deviations() -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, stack=replace(CONFIG.stack, width=256, depth=4), vocabulary=2000)
    model = TextTransformer(config)
    wanted = {
        "token_embedding.weight": 0.02,
        "position_LD": 0.01,
        "stack.blocks.3.attention.qkv.weight": 256**-0.5,
        "stack.blocks.3.attention.out.weight": 256**-0.5 / 8**0.5,
        "stack.blocks.3.mlp.0.weight": 512**-0.5,
        "stack.blocks.3.mlp.2.weight": 256**-0.5 / 8**0.5,
    }
    for name, std in wanted.items():
        assert model.get_parameter(name).std().item() == pytest.approx(std, rel=0.06), name
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("tokens", [torch.zeros(2, 11, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)])
def test_refuses_tokens_that_are_no_texts(tokens: Tensor) -> None:
    with pytest.raises(ValueError, match=r"tokens are .* wanted \(B, L\) with 1 <= L <= 10"):
        make_model()(tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stack": replace(CONFIG.stack, causal=False)}, "not causal"),
        ({"vocabulary": 0}, "vocabulary is 0"),
        ({"context": 0}, "context is 0"),
    ],
)
def test_config_refuses_what_makes_no_network(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
