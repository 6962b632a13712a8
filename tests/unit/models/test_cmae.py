"""CMAE-V: VideoMAE's loss plus a contrastive one, a target that follows slowly, views that differ in time alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from models.block import StackConfig
from models.cmae import CMAE, CMAEConfig, info_nce, shifted_views
from models.tubelets import TubeletGrid, cut_cubes, join_cubes
from models.videomae import VideoMAEConfig

GRID = TubeletGrid(frames=4, height_px=8, width_px=8, patch_px=4)
CONFIG = CMAEConfig(
    mae=VideoMAEConfig(
        grid=GRID,
        encoder=StackConfig(width=32, depth=2, heads=2),
        decoder=StackConfig(width=16, depth=1, heads=2),
    ),
    hidden=24,
    joint=12,
)


def make_model(config: CMAEConfig = CONFIG) -> CMAE:
    torch.manual_seed(0)
    return CMAE(config)


def make_views(b: int = 4) -> tuple[Tensor, Tensor]:
    clips = torch.randn(b, 3, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    return shifted_views(clips, torch.arange(b) % 3, frames=4)


def make_mask(b: int = 4) -> Tensor:
    return torch.rand(b, GRID.tokens, generator=torch.Generator().manual_seed(2)).argsort(dim=1) < 6


def test_the_loss_is_both_losses() -> None:
    clips, shifted = make_views()
    for weight in (0.0, 1.0, 0.5):
        output = make_model(replace(CONFIG, contrastive_weight=weight))(clips, shifted, make_mask())
        wanted = output.mae.loss + weight * output.contrastive_loss
        torch.testing.assert_close(output.loss, wanted)
        alone = make_model().mae(clips, make_mask())
        torch.testing.assert_close(output.mae.loss, alone.loss)
        assert output.loss.dtype == torch.float32


def test_info_nce_is_its_equation() -> None:
    online, target = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    total = 0.0
    for b in range(5):
        scores = [float(torch.cosine_similarity(online[b], target[c], dim=0)) / 0.2 for c in range(5)]
        total -= scores[b] - math.log(sum(math.exp(score) for score in scores))
    assert info_nce(online, target, temperature=0.2).item() == pytest.approx(total / 5, rel=1e-5)
    assert info_nce(online, online * 3, temperature=0.01).item() < 1e-3


def test_the_online_feature_does_not_see_masked_pixels_and_the_target_sees_all() -> None:
    model, (clips, shifted), mask = make_model(), make_views(), make_mask()
    before = model(clips, shifted, mask).contrastive_loss
    hidden = mask[:, :, None, None].expand(-1, -1, GRID.cube_pixels, 3).float()
    spoilt = torch.where(join_cubes(hidden, grid=GRID) > 0, torch.randn_like(clips), clips)
    assert not torch.equal(
        cut_cubes(spoilt, grid=GRID, selected_BS=None), cut_cubes(clips, grid=GRID, selected_BS=None)
    )
    assert torch.equal(model(spoilt, shifted, mask).contrastive_loss, before)
    changed = torch.where(join_cubes(hidden, grid=GRID) > 0, torch.randn_like(clips), shifted)
    assert not torch.equal(model(clips, changed, mask).contrastive_loss, before)


def test_the_target_gets_no_gradient_and_the_rest_does() -> None:
    model = make_model()
    model(*make_views(), make_mask()).loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("target"):
            assert parameter.grad is None, name
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name


def test_the_contrastive_loss_reaches_the_encoder() -> None:
    model = make_model()
    model(*make_views(), make_mask()).contrastive_loss.backward()
    assert model.mae.encoder.embedding.projection.weight.grad.any()
    assert model.mae.head.weight.grad is None


def test_the_target_begins_as_the_online_branch_and_follows_by_the_moving_average() -> None:
    model = make_model()
    weight, target = model.mae.encoder.embedding.projection.weight, model.target_encoder.embedding.projection.weight
    assert torch.equal(weight, target)
    before = target.clone()
    with torch.no_grad():
        weight.add_(1.0)
        model.projector[0].bias.add_(1.0)
    for step in range(1, 4):
        model.update_target(0.9)
        torch.testing.assert_close(target, before + (1 - 0.9**step))
    torch.testing.assert_close(model.target_projector[0].bias, model.projector[0].bias - 0.9**3)
    model.update_target(0.0)
    assert torch.equal(target, weight)
    with pytest.raises(ValueError, match=r"momentum is 1\.5"):
        model.update_target(1.5)


def test_views_differ_in_time_alone() -> None:
    clips = torch.arange(7.0).view(1, 1, 7, 1, 1).expand(3, 3, -1, 2, 2) + torch.arange(3.0).view(3, 1, 1, 1, 1) * 10
    first, later = shifted_views(clips, torch.tensor([0, 1, 3]), frames=4)
    assert first[:, 0, :, 0, 0].tolist() == [[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]]
    assert later[:, 0, :, 0, 0].tolist() == [[0, 1, 2, 3], [11, 12, 13, 14], [23, 24, 25, 26]]
    assert later.shape == (3, 3, 4, 2, 2)


@pytest.mark.parametrize("shifts", [[0, 4], [-1, 0], [0], [0, 1, 2]])
def test_views_refuse_shifts_outside_the_clip(shifts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"shifts are .* in clips of 7 frames, wanted 2 of 0 to 3"):
        shifted_views(torch.zeros(2, 3, 7, 2, 2), torch.tensor(shifts), frames=4)


def test_refuses_views_that_do_not_fit_and_a_clip_without_negatives() -> None:
    model, (clips, shifted), mask = make_model(), make_views(), make_mask()
    with pytest.raises(ValueError, match="at least 2 clips"):
        model(clips[:1], shifted[:1], mask[:1])
    with pytest.raises(ValueError, match="of one shape"):
        model(clips, shifted[:, :, :2], mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_depth": 0}, "feature_depth is 0"),
        ({"hidden": 0}, "hidden is 0"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"contrastive_weight": -1.0}, "contrastive_weight -1.0"),
    ],
)
def test_config_refuses_what_makes_no_network(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)


def test_both_losses_fall_when_clips_are_learned_by_heart() -> None:
    model, (clips, shifted), mask = make_model(), make_views(), make_mask()
    clips = clips * torch.linspace(0.2, 3.0, 4).view(4, 1, 1, 1, 1)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    losses = []
    for _ in range(60):
        output = model(clips, shifted, mask)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        model.update_target(0.99)
        losses.append((output.mae.loss.item(), output.contrastive_loss.item()))
    assert losses[-1][0] < 0.95 * losses[0][0]
    assert losses[-1][1] < 0.5 * losses[0][1]
