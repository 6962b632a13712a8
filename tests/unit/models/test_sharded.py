"""Every way in under FSDP2: towers alone, pooled features, the scale, the target's moving average."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from framefeed_models.block import StackConfig
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.cmae import CMAE, CMAEConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig, split_rows
from framefeed_models.text import TextConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAE, VideoMAEConfig
from framefeed_models.vit import clip_vit
from tests.unit.models.parity import largest_difference

STACK = StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0)
VIDEO = clip_vit(STACK, frames=2, size_px=16, patch_px=8)
DUAL = DualEncoderConfig(
    video=VIDEO, text=TextConfig(stack=replace(STACK, causal=True), vocabulary=30, context=8), joint=12
)
MAE = VideoMAEConfig(grid=TubeletGrid(frames=2, height_px=16, width_px=16, patch_px=4), encoder=STACK, decoder=STACK)


@pytest.fixture(scope="module", autouse=True)
def _group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def shard(model: nn.Module) -> nn.Module:
    """Every block and tower a unit of its own, then the rest: outside of a forward all weights are DTensors."""
    for module in [*model.modules()][::-1]:
        if type(module).__name__ in ("Block", "VideoViT", "TextTransformer", "CMAEBranches", "CMAEHeads"):
            fully_shard(module)
    return fully_shard(model)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 2, 16, 16, generator=generator), torch.randint(1, 30, (4, 8), generator=generator)


def pair(kind: type[nn.Module], config: object) -> tuple[nn.Module, nn.Module]:
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(kind(config))
    return models[0], shard(models[1])


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in found.items()}


def test_the_dual_encoder_by_both_towers_or_one() -> None:
    plain, sharded = pair(DualEncoder, DUAL)
    clips, tokens = inputs()
    for model in (plain, sharded):
        rows = split_rows(model(clips, tokens).joined())
        nn.functional.cross_entropy(rows.logits(), torch.arange(4)).backward()
    assert isinstance(sharded.logit_scale, DTensor)
    assert largest_difference(gradients(sharded), gradients(plain)) < 1e-6
    assert "logit_scale" in gradients(sharded)
    with torch.no_grad():
        assert torch.equal(sharded.encode_video(clips), plain.encode_video(clips))
        assert torch.equal(sharded.encode_text(tokens), plain.encode_text(tokens))
        assert sharded().scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
        sharded.reshard()  # as a backward pass does; a forward pass alone leaves the outermost weights whole
        sharded.logit_scale.fill_(9.0)
    sharded.clamp_scale()
    assert sharded.logit_scale.full_tensor().item() == pytest.approx(math.log(100))


def test_the_classifier() -> None:
    plain, sharded = pair(Classifier, ClassifierConfig(encoder=VIDEO, heads={"verb": 5}))
    for model in (plain, sharded):
        model(inputs()[0])["verb"].square().sum().backward()
    assert largest_difference(gradients(sharded), gradients(plain)) < 1e-6


def test_videomae() -> None:
    plain, sharded = pair(VideoMAE, MAE)
    mask = torch.rand(4, MAE.grid.tokens).argsort(dim=1) < 8
    for model in (plain, sharded):
        model(inputs()[0], mask).losses_B.sum().backward()
    assert largest_difference(gradients(sharded), gradients(plain)) < 1e-6


def test_cmae_by_branches_and_heads_and_its_target() -> None:
    plain, sharded = pair(CMAE, CMAEConfig(mae=MAE, feature=STACK, hidden=16, joint=8))
    mask, (clips, _) = torch.rand(4, MAE.grid.tokens).argsort(dim=1) < 8, inputs()
    for model in (plain, sharded):
        rows = model.branches(clips, clips.flip(2), mask)
        (rows.reconstruction_B.mean() + model.heads(rows.online_BD, rows.target_BD)).backward()
        with torch.no_grad():
            model.branches.mae.encoder.stack.blocks[0].mlp[0].weight.add_(1.0)
        model.update_target(0.9)
    assert largest_difference(gradients(sharded), gradients(plain)) < 1e-5
    name = "branches.target_encoder.stack.blocks.0.mlp.0.weight"
    moved = sharded.get_parameter(name)
    assert isinstance(moved, DTensor)
    torch.testing.assert_close(moved.full_tensor(), plain.get_parameter(name))
