"""Draws follow the clip: uniform, independent, the same in any batch, order, split, packing and recomputation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framefeed_models.block import StackConfig
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.clip_noise import ClipDropout, clip_bits, clip_scales, fold
from framefeed_models.cmae import CMAE, CMAEConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.text import TextConfig
from framefeed_models.timesformer import TimeSformer, TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAE, VideoMAEConfig
from framefeed_models.vit import VideoViT, clip_vit

STACK = StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0, drop_path=0.5, drop_path_rule="constant")
VIT = replace(clip_vit(STACK, frames=2, size_px=16, patch_px=4), patch_dropout=0.5, dropout=0.3)
TEXT = TextConfig(stack=replace(STACK, causal=True), vocabulary=30, context=8)
MAE = VideoMAEConfig(grid=TubeletGrid(frames=2, height_px=16, width_px=16, patch_px=4), encoder=STACK, decoder=STACK)
CHECKPOINTED = replace(VIT, stack=replace(STACK, checkpointing="block"))
DIVIDED = TimeSformerConfig(grid=VIT.grid, stack=STACK)
B = 6
Run = Callable[[nn.Module, slice, Tensor], Tensor]


def clips() -> Tensor:
    return torch.randn(B, 3, 2, 16, 16, generator=torch.Generator().manual_seed(1))


def mask() -> Tensor:
    return torch.rand(B, MAE.grid.tokens, generator=torch.Generator().manual_seed(2)).argsort(dim=1) < 12


def tokens() -> Tensor:
    return torch.randint(1, 30, (B, 8), generator=torch.Generator().manual_seed(3))


CASES: dict[str, tuple[Callable[[], nn.Module], Run]] = {
    "vit": (lambda: VideoViT(VIT), lambda model, i, s: model(clips()[i], seeds_B=s[i])),
    "vit, checkpointed": (lambda: VideoViT(CHECKPOINTED), lambda model, i, s: model(clips()[i], seeds_B=s[i])),
    "timesformer": (lambda: TimeSformer(DIVIDED), lambda model, i, s: model(clips()[i], pooled=True, seeds_B=s[i])),
    "original timesformer": (
        lambda: TimeSformer(replace(DIVIDED, variant="original")),
        lambda model, i, s: model(clips()[i], seeds_B=s[i]),
    ),
    "classifier": (
        lambda: Classifier(ClassifierConfig(encoder=VIT, heads={"verb": 5}, dropout=0.5)),
        lambda model, i, s: model(clips()[i], seeds_B=s[i])["verb"],
    ),
    "dual encoder": (
        lambda: DualEncoder(DualEncoderConfig(video=VIT, text=TEXT, joint=8)),
        lambda model, i, s: model(clips()[i], tokens()[i], seeds_B=s[i]).joined(),
    ),
    "videomae": (lambda: VideoMAE(MAE), lambda model, i, s: model(clips()[i], mask()[i], seeds_B=s[i]).losses_B),
    "cmae": (
        lambda: CMAE(CMAEConfig(mae=MAE, feature=STACK, hidden=16, joint=8)),
        lambda model, i, s: model.branches(clips()[i], clips()[i] + 1, mask()[i], seeds_B=s[i]).joined(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_clip_draws_the_same_alone_or_among_others(case: str) -> None:
    torch.manual_seed(0)
    make, run = CASES[case]
    model, seeds = make().train(), torch.arange(B) * 7 + 3
    whole = run(model, slice(None), seeds)
    parts = torch.cat([run(model, slice(i, i + n), seeds) for i, n in ((0, 1), (1, 3), (4, 2))])
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)
    other = run(model, slice(None), seeds + 1)
    assert (other - whole).abs().reshape(B, -1).amax(dim=1).gt(1e-3).sum() >= B - 1


def test_a_checkpointed_block_draws_the_same_again() -> None:
    torch.manual_seed(0)
    plain, saving, seeds = VideoViT(VIT), VideoViT(CHECKPOINTED), torch.arange(B)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        model(clips(), pooled=True, seeds_B=seeds).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert a.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


def test_packed_clips_draw_as_padded_ones() -> None:
    torch.manual_seed(0)
    model, seeds = VideoViT(replace(VIT, patch_dropout=0.0, dropout=0.0)).train(), torch.arange(B)
    padded = model(clips(), pooled=True, seeds_B=seeds)
    packed = model(clips(), pooled=True, valid_BN=torch.ones(B, VIT.grid.tokens, dtype=torch.bool), seeds_B=seeds)
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-4)


def test_numbers_are_uniform_and_independent_of_neighbours() -> None:
    """4096 clips with seeds in a row, 64 numbers each: moments, correlations and bits of a uniform variable."""
    draws = clip_bits(torch.arange(4096), torch.zeros(4096), draws=64).double().numpy() / 2**31
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 4 / np.sqrt(12 * draws.size)
    histogram = np.histogram(draws, bins=64, range=(0, 1))[0]
    assert ((histogram - draws.size / 64) ** 2 / (draws.size / 64)).sum() < 110  # chi-squared, 63 degrees, p < 1e-3
    for columns in (draws, draws[:64].T):
        off = np.corrcoef(columns.T) - np.eye(columns.shape[1])
        assert abs(off).max() < 5.5 / np.sqrt(columns.shape[0])


def test_parts_of_a_model_draw_apart_and_a_part_again_the_same() -> None:
    seeds, x = torch.arange(100), torch.zeros(100)
    first, again, other = (clip_bits(fold(seeds, number), x, draws=8) for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first == other).sum() == 0
    nested = clip_bits(fold(fold(seeds, 1), 0), x, draws=8)
    assert (nested == other).sum() == (nested == first).sum() == 0
    assert fold(None, 3) is None


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_any_int64_is_a_seed(seed: int) -> None:
    draws = clip_bits(torch.tensor([seed]), torch.zeros(1), draws=4000).double() / 2**31
    assert draws.mean().item() == pytest.approx(0.5, abs=0.02)


def test_numbers_are_those_of_the_published_generators() -> None:
    """splitmix64 and lowbias32 in Python's unbounded integers."""

    def mix64(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    def mix32(x: int) -> int:
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    for seed in (0, 1, 12345678901234567, 2**63 - 1):
        key = mix64((seed + 0x9E3779B97F4A7C15) % 2**64)
        wanted = [mix32(mix32(e ^ (key % 2**32)) ^ (key >> 32)) % 2**31 for e in range(50)]
        assert clip_bits(torch.tensor([seed]), torch.zeros(1), draws=50)[0].tolist() == wanted


def test_dropout_keeps_its_share_and_the_mean() -> None:
    x = torch.ones(200, 300)
    out = ClipDropout(0.25).train()(x, torch.arange(200))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert ClipDropout(0.25).eval()(x, torch.arange(200)) is x
    half = clip_scales(torch.arange(4), x[:4].bfloat16(), draws=9, p=0.5)
    assert half.dtype == torch.bfloat16


def test_without_seeds_torchs_generator_draws() -> None:
    x, layer = torch.ones(4, 50), ClipDropout(0.5).train()
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


def test_refuses_seeds_that_are_not_one_a_clip() -> None:
    layer, x = ClipDropout(0.5).train(), torch.ones(4, 3)
    with pytest.raises(ValueError, match=r"seeds are torch.int64 \(3,\), wanted int64 \(4,\)"):
        layer(x, torch.arange(3))
    with pytest.raises(ValueError, match=r"seeds are torch.float32 \(4,\)"):
        layer(x, torch.zeros(4))


@pytest.mark.parametrize("divided", [False, True])
def test_refuses_what_cannot_follow_a_clip(divided: bool) -> None:
    stack = replace(STACK, attention_dropout=0.1)
    config = replace(DIVIDED, stack=stack) if divided else replace(VIT, stack=stack)
    model: nn.Module = TimeSformer(config) if isinstance(config, TimeSformerConfig) else VideoViT(config)
    with pytest.raises(ValueError, match=r"attention_dropout 0.1 with clip seeds"):
        model.train()(clips(), seeds_B=torch.arange(B))
    model.eval()(clips(), seeds_B=torch.arange(B))
