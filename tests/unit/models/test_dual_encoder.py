"""The joint space: unit rows, a bounded temperature, both kinds of tower, AVION's sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from framefeed_models.block import StackConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig, avion
from framefeed_models.text import TextConfig
from framefeed_models.timesformer import TimeSformer, TimeSformerConfig
from framefeed_models.vit import VideoViT, clip_vit

STACK = StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0)
VIDEO = clip_vit(STACK, frames=2, size_px=16, patch_px=8)
CONFIG = DualEncoderConfig(
    video=VIDEO, text=TextConfig(stack=replace(STACK, causal=True), vocabulary=30, context=8), joint=12
)
DIVIDED = replace(CONFIG, video=TimeSformerConfig(grid=VIDEO.grid, stack=STACK))


def make_model(config: DualEncoderConfig = CONFIG) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(config)


def make_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 29, (4, 8), generator=generator)
    tokens[:, 5] = 29
    return torch.randn(4, 3, 2, 16, 16, generator=generator), tokens


@pytest.mark.parametrize(("config", "tower"), [(CONFIG, VideoViT), (DIVIDED, TimeSformer)])
def test_rows_have_length_1_and_logits_are_scaled_cosines(config: DualEncoderConfig, tower: type) -> None:
    model = make_model(config)
    encoding = model(*make_inputs())
    assert isinstance(model.video, tower)
    assert encoding.video_BE.shape == encoding.text_BE.shape == (4, 12)
    for rows in (encoding.video_BE, encoding.text_BE):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    cosines = torch.nn.functional.cosine_similarity(encoding.video_BE[:, None], encoding.text_BE[None], dim=-1)
    torch.testing.assert_close(encoding.logits(), cosines / 0.07, atol=1e-4, rtol=1e-4)


def test_rows_are_float32_under_autocast() -> None:
    model, (clips, tokens) = make_model(), make_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        encoding = model(clips, tokens)
    assert encoding.video_BE.dtype == encoding.text_BE.dtype == encoding.scale.dtype == torch.float32
    torch.testing.assert_close(encoding.video_BE, model.encode_video(clips), atol=0.05, rtol=0)


def test_the_scale_stays_between_1_and_100() -> None:
    model = make_model()
    for value, wanted in ((7.0, 100.0), (-1.0, 1.0), (2.0, math.exp(2.0))):
        torch.nn.init.constant_(model.logit_scale, value)
        model.clamp_scale()
        assert model.logit_scale.exp().item() == pytest.approx(wanted, rel=1e-5)


def test_the_scale_can_be_frozen_as_avions_recipes_do() -> None:
    model = make_model(replace(CONFIG, learn_temperature=False))
    model(*make_inputs()).logits().diagonal().sum().backward()
    assert model.logit_scale.grad is None
    assert model.logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-5)


@pytest.mark.parametrize("config", [CONFIG, DIVIDED])
def test_every_parameter_learns_from_matching_pairs(config: DualEncoderConfig) -> None:
    model = make_model(config)
    logits = model(*make_inputs()).logits()
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if "time." not in name and "norm_time" not in name:  # LaViLa starts these where some gradients are 0
            assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("size", "tokens", "width", "text_width", "millions"),
    [
        ("CLIP_VITB16", 785, 768, 512, 149),
        ("CLIP_VITL14", 1025, 1024, 768, 428),
        ("CLIP_VITL14_336PX", 2305, 1024, 768, 428),
    ],
)
def test_avions_sizes(size: str, tokens: int, width: int, text_width: int, millions: int) -> None:
    """Tokens and widths of AVION's models; CLIP's ViT-B/16 has 150 and ViT-L/14 428 million parameters."""
    with torch.device("meta"):
        model = DualEncoder(avion(size))
        size_px = model.config.video.grid.height_px
        feature = model.video(torch.zeros(1, 3, 4, size_px, size_px))
    assert feature.shape == (1, tokens, width)
    assert model.text_projection_DE.shape == (text_width, 256)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
    assert avion(size, frames=16).video.grid.frames == 16


def test_refuses_unknown_sizes_and_no_joint_space() -> None:
    with pytest.raises(ValueError, match="'CLIP_VITB32', wanted one of CLIP_VITB16"):
        avion("CLIP_VITB32")
    with pytest.raises(ValueError, match="joint is 0"):
        replace(CONFIG, joint=0)
