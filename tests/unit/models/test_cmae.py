"""CMAE-V: VideoMAE's loss plus a contrastive one, a target that follows slowly, views that differ in time alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framefeed_models.block import StackConfig
from framefeed_models.cmae import CMAE, CMAEConfig, shifted_views, split_rows
from framefeed_models.cmae_heads import info_nce
from framefeed_models.tubelets import TubeletGrid, cut_cubes, join_cubes
from framefeed_models.videomae import VideoMAEConfig
from tests.unit.models.parity import gradients, largest_difference

GRID = TubeletGrid(frames=4, height_px=8, width_px=8, patch_px=4)
MAE = VideoMAEConfig(
    grid=GRID, encoder=StackConfig(width=32, depth=2, heads=2), decoder=StackConfig(width=16, depth=1, heads=2)
)
CONFIG = CMAEConfig(mae=MAE, feature=StackConfig(width=24, depth=1, heads=2), hidden=24, joint=12)
NO_TRUE_GRADIENT = ("heads.projector.0.bias", "heads.predictor.0.bias")
Array = np.ndarray[Any, np.dtype[np.float64]]


def make_model(config: CMAEConfig = CONFIG) -> CMAE:
    torch.manual_seed(0)
    return CMAE(config)


def make_views(b: int = 4) -> tuple[Tensor, Tensor]:
    clips = torch.randn(b, 3, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    return shifted_views(clips, torch.arange(b) % 3, frames=4)


def make_mask(b: int = 4) -> Tensor:
    return torch.rand(b, GRID.tokens, generator=torch.Generator().manual_seed(2)).argsort(dim=1) < 6


def numpy_head(head: nn.Sequential, x: Array) -> Array:
    """Linear, batch norm over the rows given (biased variance, eps 1e-6), ReLU, Linear, as the authors configure it."""
    w1, b1, scale, shift, w2, b2 = (p.detach().double().numpy() for p in head.parameters())
    h = x @ w1.T + b1
    h = (h - h.mean(axis=0)) / np.sqrt(((h - h.mean(axis=0)) ** 2).mean(axis=0) + 1e-6) * scale + shift
    out: Array = np.maximum(h, 0) @ w2.T + b2
    return out


def numpy_contrastive(model: CMAE, online: Array, target: Array, *, tau: float, factor: float) -> float:
    """factor · mean_b -log softmax_b(cos(predictor(projector(o_b)), target_projector(t)) / τ)."""
    heads = model.heads
    o, t = numpy_head(heads.predictor, numpy_head(heads.projector, online)), numpy_head(heads.target_projector, target)
    o, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (o, t))
    scores = o @ t.T / tau
    log_sums = np.log(np.exp(scores).sum(axis=1))
    return float(factor * (log_sums - scores.diagonal()).mean())


def randomise_heads(model: CMAE) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in model.heads.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({}, 2 * 0.07),
        ({"contrastive_weight": 0.5}, 0.07),
        ({"temperature": 0.2}, 2 * 0.2),
        ({"scaled_by_temperature": False}, 1.0),
        ({"contrastive_weight": 0.0}, 0.0),
    ],
)
def test_the_contrastive_loss_is_the_authors_formula(change: dict[str, Any], factor: float) -> None:
    model = make_model(replace(CONFIG, **change))
    randomise_heads(model)
    online, target = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(6))
    tau = change.get("temperature", 0.07)
    wanted = numpy_contrastive(model, online.double().numpy(), target.double().numpy(), tau=tau, factor=factor)
    assert model.heads(online, target).item() == pytest.approx(wanted, rel=2e-5, abs=1e-7)


def test_the_defaults_are_the_authors() -> None:
    config = CMAEConfig(mae=MAE)
    model = make_model(config)
    assert (config.hidden, config.joint, config.temperature, config.contrastive_weight) == (1536, 256, 0.07, 1.0)
    assert (config.feature.width, config.feature.depth, config.feature.heads) == (512, 2, 16)
    shapes = {name: tuple(p.shape) for name, p in model.heads.named_parameters() if name.endswith("weight")}
    assert shapes["projector.0.weight"] == shapes["target_projector.0.weight"] == (1536, 32)
    assert shapes["projector.3.weight"] == shapes["target_projector.3.weight"] == (256, 1536)
    assert (shapes["predictor.0.weight"], shapes["predictor.3.weight"]) == ((1536, 256), (256, 1536))


def test_the_loss_is_both_losses() -> None:
    model, (clips, shifted) = make_model(), make_views()
    output = model(clips, shifted, make_mask())
    torch.testing.assert_close(output.loss, output.reconstruction_loss + output.contrastive_loss)
    torch.testing.assert_close(output.reconstruction_loss, model.branches.mae(clips, make_mask()).loss)
    assert output.loss.dtype == output.contrastive_loss.dtype == torch.float32


def test_rows_in_parts_make_the_loss_and_the_gradients_of_the_whole_batch() -> None:
    """What a clip gives depends on no other clip, and the heads see all of them, whoever made the rows."""
    (clips, shifted), mask = make_views(), make_mask()
    whole, parts = make_model().double(), make_model().double()
    clips, shifted = clips.double(), shifted.double()
    whole(clips, shifted, mask).loss.backward()
    pieces = [parts.branches(clips[i], shifted[i], mask[i]).joined() for i in (slice(0, 1), slice(1, 4))]
    rows = split_rows(torch.cat(pieces))
    (rows.reconstruction_B.mean() + parts.heads(rows.online_BD, rows.target_BD)).backward()
    wanted = gradients(whole)
    assert largest_difference(gradients(parts), wanted) < 1e-6
    assert wanted.keys() == {name for name, p in whole.named_parameters() if p.requires_grad}


def test_the_target_has_no_final_norm_and_averages_all_cubes() -> None:
    model, (clips, shifted) = make_model(), make_views()
    encoder = model.branches.mae.encoder
    nn.init.constant_(encoder.norm.weight, 3.0)
    rows = model.branches(clips, shifted, make_mask())
    with torch.no_grad():
        wanted = encoder.stack(encoder.embedding(shifted)).mean(dim=1)
    torch.testing.assert_close(rows.target_BD, wanted)


def test_the_feature_decoder_shares_nothing_with_the_pixel_decoder() -> None:
    model, (clips, shifted) = make_model(), make_views()
    before = model.branches(clips, shifted, make_mask())
    with torch.no_grad():
        for name in ("bridge.weight", "mask_token_D", "head.weight", "norm.weight"):
            model.branches.mae.get_parameter(name).mul_(2.0)
    after = model.branches(clips, shifted, make_mask())
    assert torch.equal(after.online_BD, before.online_BD)
    assert not torch.equal(after.reconstruction_B, before.reconstruction_B)
    pixels = {p.data_ptr() for p in model.branches.mae.parameters()}
    assert pixels.isdisjoint(p.data_ptr() for p in model.branches.feature_decoder.parameters())


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
        if "target" in name or name in NO_TRUE_GRADIENT:
            assert parameter.grad is None, name
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name


def test_the_contrastive_loss_reaches_the_encoder() -> None:
    model = make_model()
    model(*make_views(), make_mask()).contrastive_loss.backward()
    assert model.branches.mae.encoder.embedding.projection.weight.grad.any()
    assert model.branches.mae.head.weight.grad is None


def test_the_target_begins_as_the_online_branch_and_follows_by_the_moving_average() -> None:
    model = make_model()
    weight, target = (
        model.branches.mae.encoder.embedding.projection.weight,
        model.branches.target_encoder.embedding.projection.weight,
    )
    assert torch.equal(weight, target)
    before = target.clone()
    with torch.no_grad():
        weight.add_(1.0)
        model.heads.projector[3].bias.add_(1.0)
    for step in range(1, 4):
        model.update_target(0.9)
        torch.testing.assert_close(target, before + (1 - 0.9**step))
    torch.testing.assert_close(model.heads.target_projector[3].bias, model.heads.projector[3].bias - 0.9**3)
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
        ({"feature": StackConfig(width=17, depth=1, heads=1)}, "feature width is 17"),
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
        losses.append((output.reconstruction_loss.item(), output.contrastive_loss.item()))
    assert losses[-1][0] < 0.95 * losses[0][0]
    assert losses[-1][1] < 0.5 * losses[0][1]
