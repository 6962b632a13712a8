"""VideoMAE: what is hidden stays hidden, the target is the paper's, the loss falls, and clips can be rebuilt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from framefeed_models.block import StackConfig
from framefeed_models.positions import sincos_positions
from framefeed_models.tubelets import TubeletGrid, cut_cubes, join_cubes
from framefeed_models.videomae import (
    PRESETS,
    VideoMAE,
    VideoMAEConfig,
    VideoMAEOutput,
    cube_statistics,
    rebuild_clips,
    split_mask,
)

GRID = TubeletGrid(frames=4, height_px=12, width_px=12, patch_px=4)
CONFIG = VideoMAEConfig(
    grid=GRID,
    encoder=StackConfig(width=32, depth=2, heads=2),
    decoder=StackConfig(width=16, depth=1, heads=2),
)


def make_model(config: VideoMAEConfig = CONFIG) -> VideoMAE:
    torch.manual_seed(0)
    return VideoMAE(config)


def make_clips(b: int = 2) -> Tensor:
    return torch.randn(b, 3, 4, 12, 12, generator=torch.Generator().manual_seed(1))


def make_mask(b: int = 2, masked: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    order = torch.rand(b, GRID.tokens, generator=generator).argsort(dim=1)
    return order < masked


def change_cubes(clips: Tensor, mask: Tensor) -> Tensor:
    """The clips with noise in the cubes under the mask, and nowhere else."""
    hidden = mask[:, :, None, None].expand(-1, -1, GRID.cube_pixels, 3).float()
    return torch.where(join_cubes(hidden, grid=GRID) > 0, torch.randn_like(clips) * 7, clips)


def test_predicts_exactly_the_masked_cubes() -> None:
    mask = make_mask()
    output = make_model()(make_clips(), mask)
    assert output.predictions_BMPC.shape == (2, 12, GRID.cube_pixels, 3)
    assert output.loss.shape == ()
    for b in range(2):
        assert output.masked_BM[b].tolist() == mask[b].nonzero().flatten().tolist()


def test_predictions_do_not_depend_on_masked_pixels() -> None:
    model, clips, mask = make_model().eval(), make_clips(), make_mask()
    before, after = model(clips, mask), model(change_cubes(clips, mask), mask)
    assert torch.equal(before.predictions_BMPC, after.predictions_BMPC)
    assert before.loss.item() != after.loss.item()


def test_predictions_do_depend_on_visible_pixels() -> None:
    model, clips, mask = make_model().eval(), make_clips(), make_mask()
    before, after = model(clips, mask), model(change_cubes(clips, ~mask), mask)
    assert not torch.allclose(before.predictions_BMPC, after.predictions_BMPC, atol=1e-3)


def test_encoder_sees_the_visible_tokens_only() -> None:
    model, seen = make_model(), []
    model.encoder.stack.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model(make_clips(), make_mask(masked=14))
    assert seen == [(2, GRID.tokens - 14, 32), (2, GRID.tokens, 16)]


def test_each_masked_token_is_told_its_place() -> None:
    """Same mask token everywhere, so predictions differ by position alone; clips of one batch do not mix."""
    model, clips = make_model().eval(), make_clips(1)
    mask = make_mask(2)
    output = model(clips.expand(2, -1, -1, -1, -1), mask)
    assert output.predictions_BMPC[0].std(dim=0).min() > 1e-4
    alone = model(clips, mask[1:])
    torch.testing.assert_close(alone.predictions_BMPC[0], output.predictions_BMPC[1], atol=1e-5, rtol=1e-5)


def test_forward_is_the_papers_with_tokens_left_in_their_places() -> None:
    """Every token keeps its place here, visible or masked; attention does not care that `forward` moves them."""
    model, clips, mask = make_model().eval(), make_clips(), make_mask()
    visible, masked = split_mask(mask)
    positions = sincos_positions(GRID.tokens, width=16)
    with torch.no_grad():
        tokens = model.mask_token_D.expand(2, GRID.tokens, -1).clone()
        tokens[~mask] = model.bridge(model.encoder(clips, selected_BS=visible)).flatten(0, 1)
        decoded = model.head(model.norm(model.decoder(tokens + positions)))
        wanted = decoded[mask].view(2, masked.shape[1], GRID.cube_pixels, 3)
        torch.testing.assert_close(model(clips, mask).predictions_BMPC, wanted, atol=1e-5, rtol=1e-5)


def test_loss_is_the_papers_on_a_hand_written_numpy_loop() -> None:
    clips, mask = make_clips() * 3 + 1, make_mask()
    output = make_model()(clips, mask)
    x, predictions = clips.double().numpy(), output.predictions_BMPC.detach().double().numpy()
    errors = []
    for b in range(2):
        for m, token in enumerate(np.flatnonzero(mask[b].numpy())):
            slot, row, column = token // 9, token % 9 // 3, token % 3
            for c in range(3):
                cube = x[b, c, 2 * slot : 2 * slot + 2, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].ravel()
                target = (cube - cube.mean()) / (np.sqrt(cube.var(ddof=1)) + 1e-6)
                errors.append((predictions[b, m, :, c] - target) ** 2)
    assert output.loss.item() == pytest.approx(np.mean(errors), rel=1e-5)


def test_target_forgets_brightness_and_contrast_of_each_channel() -> None:
    model, clips, mask = make_model().eval(), make_clips(), make_mask()
    cubes = cut_cubes(clips, grid=GRID, selected_BS=None)
    scale, shift = torch.tensor([2.0, 0.5, 4.0]), torch.tensor([1.0, -3.0, 0.0])
    moved = cubes * scale + shift
    wanted = cube_statistics(cubes).normalise(cubes)
    torch.testing.assert_close(cube_statistics(moved).normalise(moved), wanted, atol=1e-4, rtol=1e-4)
    assert model(clips, mask).loss.item() == pytest.approx(1.0, abs=0.6)


def test_flat_cubes_have_a_target_of_zero() -> None:
    cubes = torch.full((1, 2, 32, 3), 0.5)
    assert torch.equal(cube_statistics(cubes).normalise(cubes), torch.zeros_like(cubes))


def test_restore_undoes_normalise() -> None:
    cubes = cut_cubes(make_clips() * 5 + 2, grid=GRID, selected_BS=None)
    statistics = cube_statistics(cubes)
    torch.testing.assert_close(statistics.restore(statistics.normalise(cubes)), cubes, atol=1e-5, rtol=1e-5)


def test_target_is_float32_for_bf16_clips_and_autocast() -> None:
    model, clips, mask = make_model(), make_clips(), make_mask()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(clips, mask)
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(model(clips, mask).loss.item(), rel=0.02)


def test_rebuild_keeps_visible_pixels_and_fills_masked_ones() -> None:
    model, clips, mask = make_model(), make_clips(), make_mask()
    output = model(clips, mask)
    rebuilt = rebuild_clips(clips, output, grid=GRID)
    before, after = (cut_cubes(x, grid=GRID, selected_BS=None) for x in (clips, rebuilt))
    assert torch.equal(after[~mask], before[~mask])
    truth = before[mask].double()
    std, mean = truth.std(dim=1, correction=1, keepdim=True), truth.mean(dim=1, keepdim=True)
    wanted = output.predictions_BMPC.flatten(0, 1).double() * (std + 1e-6) + mean
    torch.testing.assert_close(after[mask].double(), wanted, atol=1e-5, rtol=1e-5)
    assert not rebuilt.requires_grad


def test_rebuild_of_perfect_predictions_is_the_clip() -> None:
    clips, mask = make_clips(), make_mask()
    _, masked = split_mask(mask)
    cubes = cut_cubes(clips, grid=GRID, selected_BS=masked)
    output = VideoMAEOutput(
        losses_B=torch.zeros(len(clips)), predictions_BMPC=cube_statistics(cubes).normalise(cubes), masked_BM=masked
    )
    torch.testing.assert_close(rebuild_clips(clips, output, grid=GRID), clips, atol=1e-5, rtol=1e-5)


def test_loss_falls_when_one_batch_is_learned_by_heart() -> None:
    model, mask = make_model(), make_mask(2)
    t, y, x = torch.meshgrid(torch.arange(4.0), torch.arange(12.0), torch.arange(12.0), indexing="ij")
    wave = torch.stack((torch.sin(x + t), torch.cos(y - t), torch.sin(x + y)))
    clips = torch.stack((wave, wave.flip(-1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    losses = []
    for _ in range(80):
        output = model(clips, mask)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[0] > 0.8
    assert losses[-1] < 0.3 * losses[0]


def test_every_parameter_gets_a_gradient() -> None:
    model = make_model()
    model(make_clips(), make_mask()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_checkpointing_and_backends_give_the_same_gradients() -> None:
    encoder, decoder = CONFIG.encoder, CONFIG.decoder
    variants = [
        CONFIG,
        replace(CONFIG, encoder=replace(encoder, checkpointing="block"), decoder=replace(decoder, attention="sdpa")),
        replace(CONFIG, encoder=replace(encoder, attention="reference"), decoder=replace(decoder, depth=1)),
    ]
    found = []
    for config in variants:
        model = make_model(config)
        model(make_clips(), make_mask()).loss.backward()
        found.append([p.grad for p in model.parameters()])
    for other in found[1:]:
        for mine, wanted in zip(other, found[0], strict=True):
            torch.testing.assert_close(mine, wanted, atol=1e-6, rtol=1e-4)


def test_split_mask_names_visible_and_masked_in_order() -> None:
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    visible, masked = split_mask(mask)
    assert visible.tolist() == [[1, 3], [0, 1]]
    assert masked.tolist() == [[0, 2], [2, 3]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([[True, False, False], [True, True, False]]), r"\[1, 2\] masked tokens"),
        (torch.tensor([[True, True], [True, True]]), "hides 2 of 2"),
        (torch.tensor([[False, False]]), "hides 0 of 2"),
        (torch.tensor([[1, 0]]), "wanted bool"),
        (torch.tensor([True, False]), "wanted bool"),
    ],
)
def test_split_mask_refuses(mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_mask(mask)


def test_forward_refuses_masks_of_another_grid_or_batch() -> None:
    for mask in (make_mask(3), make_mask(2)[:, :-1], make_mask(2)[0]):
        with pytest.raises(ValueError, match=r"mask is .* wanted \(2, 18\)"):
            make_model()(make_clips(), mask)


def test_config_refuses_odd_widths() -> None:
    with pytest.raises(ValueError, match="decoder width is 15"):
        replace(CONFIG, decoder=StackConfig(width=15, depth=1, heads=3))


def test_presets_have_the_published_sizes() -> None:
    """Encoders are ViT-S/B/L/H (22, 86, 307 and 632 million parameters; Dosovitskiy et al. 2021, table 1)."""
    for name, millions in (("small", 22), ("base", 86), ("large", 307), ("huge", 632)):
        with torch.device("meta"):
            model = VideoMAE(PRESETS[name])
        assert sum(p.numel() for p in model.encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.02), name
        assert model.grid.tokens == 1568
        assert model.head.out_features == 1536
        assert model.bridge.out_features == model.encoder.norm.normalized_shape[0] // 2
        assert len(model.decoder.blocks) == (12 if name in ("large", "huge") else 4)
        assert PRESETS[name].decoder.width // PRESETS[name].decoder.heads == 64 + 16 * (name == "huge")


def test_tiny_preset_runs() -> None:
    config = PRESETS["tiny"]
    grid = config.grid
    mask = torch.zeros(2, grid.slots, grid.cells, dtype=torch.bool)
    mask[:, :, : grid.cells * 3 // 4] = True
    clips = torch.randn(2, 3, grid.frames, grid.height_px, grid.width_px)
    assert make_model(config)(clips, mask.flatten(1)).loss.isfinite()
