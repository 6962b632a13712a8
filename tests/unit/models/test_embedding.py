"""Weights of one clip length and size fitted to another: what is learned is interpolated, what is computed is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from framefeed_models.block import StackConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.embedding import ClipEmbedding, Positions, fit_positions
from framefeed_models.encoder import feature_of, make_encoder, valid_cubes
from framefeed_models.positions import resize_cells, resize_slots
from framefeed_models.text import TextConfig
from framefeed_models.timesformer import TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.vit import Pool, VideoViT, ViTConfig, clip_vit

STACK = StackConfig(width=16, depth=1, heads=2)
SHORT = clip_vit(STACK, frames=4, size_px=8, patch_px=4)
LONG = clip_vit(STACK, frames=16, size_px=12, patch_px=4)


def make_vit(config: ViTConfig) -> VideoViT:
    torch.manual_seed(0)
    model = VideoViT(config)
    if config.positions == "learned":
        torch.nn.init.normal_(model.embedding.temporal_UD)
    return model.eval()


def test_four_frames_to_sixteen_and_to_larger_pictures() -> None:
    short, long = make_vit(SHORT), make_vit(LONG)
    weights = fit_positions(short.state_dict(), source=SHORT.grid, target=LONG.grid)
    long.load_state_dict(weights)
    times, cells = short.embedding.temporal_UD, short.embedding.position_cells_GD
    assert torch.equal(long.embedding.temporal_UD, resize_slots(times, slots=16))
    assert torch.equal(long.embedding.position_cells_GD, resize_cells(cells, source=(2, 2), target=(3, 3)))
    others = [name for name in weights if "temporal" not in name and "cells" not in name]
    assert all(torch.equal(weights[name], short.state_dict()[name]) for name in others)
    assert long(torch.randn(1, 3, 16, 12, 12)).shape == (1, 1 + 16 * 9, 16)


@pytest.mark.parametrize("positions", ["learned", "flat", "grid"])
def test_clips_of_any_shape_are_met_with_the_positions_that_fitting_would_give(positions: Positions) -> None:
    own, other = (replace(one, positions=positions, pool="mean") for one in (SHORT, LONG))
    any_shape = make_vit(replace(own, any_shape=True))
    fixed, larger = make_vit(own), make_vit(other)
    larger.load_state_dict(fit_positions(any_shape.state_dict(), source=own.grid, target=other.grid))
    for model, x_BCTYX in ((fixed, torch.randn(2, 3, 4, 8, 8)), (larger, torch.randn(2, 3, 16, 12, 12))):
        for _ in range(2):
            torch.testing.assert_close(any_shape(x_BCTYX, pooled=True), model(x_BCTYX, pooled=True))
    with pytest.raises(ValueError, match="wanted a multiple of 4"):
        any_shape(torch.randn(1, 3, 4, 8, 10))
    with pytest.raises(ValueError, match="clips are"):
        fixed(torch.randn(1, 3, 16, 12, 12))


def test_gradients_reach_the_learned_tables_through_clips_of_another_shape() -> None:
    model = make_vit(replace(SHORT, any_shape=True)).train()
    model(torch.randn(1, 3, 16, 12, 12), pooled=True)[:, 0].sum().backward()
    for table in (model.embedding.temporal_UD, model.embedding.position_cells_GD):
        assert table.grad is not None
        assert table.grad.abs().sum() > 0


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_padding_is_neither_attended_to_nor_pooled(pool: Pool) -> None:
    model = make_vit(replace(SHORT, pool=pool))
    x_BCTYX = torch.randn(3, 3, 4, 8, 8)
    whole = feature_of(model, x_BCTYX, seeds_B=None)
    torch.testing.assert_close(feature_of(model, x_BCTYX, seeds_B=None, frames_B=(4, 4, 4)), whole)
    other = x_BCTYX.clone()
    other[1, :, 2:] = 7.0
    padded, changed = (feature_of(model, x, seeds_B=None, frames_B=(4, 2, 4)) for x in (x_BCTYX, other))
    torch.testing.assert_close(padded, changed)
    torch.testing.assert_close(padded[[0, 2]], whole[[0, 2]])
    assert not torch.allclose(padded[1], whole[1])


def test_a_cube_with_one_frame_of_the_video_counts_and_a_timesformer_takes_none() -> None:
    grid = TubeletGrid(frames=4, height_px=8, width_px=4, patch_px=4)
    assert valid_cubes((1, 2, 3), grid).tolist() == [[True, True, False, False]] * 2 + [[True] * 4]
    divided = make_encoder(TimeSformerConfig(grid=SHORT.grid, stack=STACK))
    with pytest.raises(ValueError, match="TimeSformer: got padded clips"):
        feature_of(divided, torch.randn(1, 3, 4, 8, 8), seeds_B=None, frames_B=(2,))


def test_what_fits_already_is_taken_as_it_is() -> None:
    weights = make_vit(SHORT).state_dict()
    same = fit_positions(weights, source=SHORT.grid, target=SHORT.grid)
    assert all(same[name] is tensor for name, tensor in weights.items())


def test_positions_inside_a_larger_model_are_found() -> None:
    text = TextConfig(stack=replace(STACK, causal=True), vocabulary=9, context=4)
    short, long = (DualEncoder(DualEncoderConfig(video=video, text=text, joint=8)) for video in (SHORT, LONG))
    long.load_state_dict(fit_positions(short.state_dict(), source=SHORT.grid, target=LONG.grid))


@pytest.mark.parametrize("change", [{"patch_px": 2}, {"channels": 1}, {"tubelet_frames": 2}])
def test_cubes_of_another_size_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} is .* in the weights, wanted the model's"):
        fit_positions({}, source=SHORT.grid, target=replace(SHORT.grid, **change))


def test_learned_positions_are_weights_and_fixed_ones_are_not() -> None:
    grid = TubeletGrid(frames=4, height_px=8, width_px=8, patch_px=4)
    for positions, class_token, wanted in (
        ("learned", True, {"class_token_D", "position_class_D", "position_cells_GD", "temporal_UD"}),
        ("learned", False, {"position_cells_GD", "temporal_UD"}),
        ("flat", True, {"class_token_D"}),
        ("grid", False, set()),
    ):
        embedding = ClipEmbedding(grid, width=16, positions=positions, class_token=class_token)
        assert set(embedding.state_dict()) == wanted | {"projection.weight", "projection.bias"}


def test_the_table_counts_time_first_then_cells() -> None:
    embedding = make_vit(SHORT).embedding
    table = embedding.table()
    for u in range(4):
        for g in range(4):
            wanted = embedding.temporal_UD[u] + embedding.position_cells_GD[g]
            torch.testing.assert_close(table[u * 4 + g], wanted)
