"""The video encoder: its embedding is the usual strided convolution, and it reads nothing but the selected cubes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from framefeed_models.block import StackConfig
from framefeed_models.positions import sincos_positions
from framefeed_models.tubelets import TubeletGrid, join_cubes
from framefeed_models.vit import VideoViT, ViTConfig, clip_vit, keep_patches

GRID = TubeletGrid(frames=4, height_px=8, width_px=12, patch_px=4)
STACK = StackConfig(width=16, depth=2, heads=2)


def make_encoder(stack: StackConfig = STACK) -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(ViTConfig(grid=GRID, stack=stack)).eval()


def make_clips(b: int = 2) -> Tensor:
    return torch.randn(b, 3, 4, 8, 12, generator=torch.Generator().manual_seed(1))


def test_encodes_every_cube_to_a_normed_token() -> None:
    tokens = make_encoder()(make_clips())
    assert tokens.shape == (2, GRID.tokens, 16)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, GRID.tokens), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.square().mean(-1), torch.ones(2, GRID.tokens), atol=1e-3, rtol=0)


def test_embedding_is_the_strided_convolution_plus_positions() -> None:
    """Weights of a Conv3d (D, C, p, q, r) become ours by moving channels last and flattening."""
    encoder, clips = make_encoder(), make_clips()
    kernel = torch.randn(16, 3, 2, 4, 4)
    with torch.no_grad():
        encoder.embedding.projection.weight.copy_(kernel.permute(0, 2, 3, 4, 1).flatten(1))
        nn.init.normal_(encoder.embedding.projection.bias)
    encoder.stack.blocks = nn.ModuleList()  # type: ignore[assignment]
    encoder.norm = nn.Identity()  # type: ignore[assignment]
    convolved = conv3d(clips, kernel, encoder.embedding.projection.bias, stride=(2, 4, 4)).flatten(2).mT
    wanted = convolved + sincos_positions(GRID.tokens, width=16)
    torch.testing.assert_close(encoder(clips), wanted, atol=1e-4, rtol=1e-4)


def test_all_cubes_selected_is_the_full_encoding() -> None:
    encoder, clips = make_encoder(), make_clips()
    everything = torch.arange(GRID.tokens).expand(2, -1)
    torch.testing.assert_close(encoder(clips, selected_BS=everything), encoder(clips))


def test_order_of_selection_orders_tokens_and_changes_nothing_else() -> None:
    encoder, clips = make_encoder(), make_clips(1)
    forward, backward = torch.tensor([[1, 4, 9]]), torch.tensor([[9, 4, 1]])
    there, back = encoder(clips, selected_BS=forward), encoder(clips, selected_BS=backward)
    torch.testing.assert_close(there, back.flip(1), atol=1e-5, rtol=1e-5)


def test_does_not_read_cubes_that_are_not_selected() -> None:
    encoder, clips = make_encoder(), make_clips()
    selected = torch.tensor([[0, 3, 11], [2, 5, 6]])
    address = torch.arange(GRID.tokens)[None, :, None, None].expand(2, -1, GRID.cube_pixels, 3).float()
    cube_of_pixel = join_cubes(address, grid=GRID)
    chosen = torch.stack([torch.isin(cube_of_pixel[b], selected[b].float()) for b in range(2)])
    spoilt = torch.where(chosen, clips, math.nan)
    assert spoilt.isnan().any()
    assert torch.equal(encoder(spoilt, selected_BS=selected), encoder(clips, selected_BS=selected))


def test_positions_are_fixed_and_not_saved() -> None:
    encoder = make_encoder()
    names = {*encoder.state_dict()} | {name for name, _ in encoder.named_parameters()}
    assert not any("position" in name for name in names)


def test_runs_under_autocast_close_to_float32() -> None:
    encoder, clips = make_encoder(), make_clips()
    wanted = encoder(clips)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(encoder(clips).float(), wanted, atol=0.1, rtol=0.1)


def test_refuses_clips_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"clips are \(2, 3, 4, 8, 8\), wanted \(B, 3, 4, 8, 12\)"):
        make_encoder()(torch.zeros(2, 3, 4, 8, 8))


CLIP = replace(
    clip_vit(STACK, frames=4, size_px=8, patch_px=4),
    grid=TubeletGrid(frames=4, height_px=8, width_px=12, tubelet_frames=1, patch_px=4),
)
MEAN = replace(CLIP, pool="mean")
PLAIN = ViTConfig(grid=GRID, stack=STACK)


def make_vit(config: ViTConfig) -> VideoViT:
    torch.manual_seed(0)
    model = VideoViT(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def test_the_class_token_comes_first_with_a_place_and_no_time() -> None:
    """[class + p0; cube_(t, n) E + p_n + time_t], then the norm before the blocks."""
    model, clips = make_vit(CLIP).eval(), make_clips()
    model.stack.blocks = nn.ModuleList()  # type: ignore[assignment]
    embedding = model.embedding
    kernel = embedding.projection.weight.view(16, 1, 4, 4, 3).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        patches = conv3d(clips, kernel, stride=(1, 4, 4)).flatten(3).permute(0, 2, 3, 1)
        patches = patches + embedding.position_cells_GD + embedding.temporal_UD[:, None]
        first = (embedding.class_token_D + embedding.position_class_D).expand(2, 1, -1)
        wanted = model.norm(model.norm_pre(torch.cat((first, patches.flatten(1, 2)), dim=1)))
        torch.testing.assert_close(model(clips), wanted, atol=1e-4, rtol=1e-4)
    assert embedding.projection.bias is None


@pytest.mark.parametrize("config", [CLIP, MEAN, PLAIN])
def test_a_feature_is_pooled_first_and_normed_then(config: ViTConfig) -> None:
    model, clips = make_vit(config).eval(), make_clips()
    with torch.no_grad():
        encoded = model.stack(model.norm_pre(model.embedding(clips)))
        pooled = encoded[:, 0] if config.pool == "class" else encoded.mean(dim=1)
        torch.testing.assert_close(model(clips, pooled=True), model.norm(pooled))


@pytest.mark.parametrize("config", [CLIP, MEAN, PLAIN])
def test_patch_dropout_acts_in_training_only_keeps_the_class_token_and_follows_the_seed(config: ViTConfig) -> None:
    dropping, clips = make_vit(replace(config, patch_dropout=0.5)), make_clips()
    with torch.no_grad():
        assert torch.equal(dropping.eval()(clips), make_vit(config).eval()(clips))
        assert torch.equal(dropping(clips, pooled=True), dropping(clips, pooled=True))
        dropping.train()
        kept = config.grid.tokens // 2 + config.class_token
        assert dropping(clips).shape == (2, kept, 16)
        torch.manual_seed(1)
        first, second = dropping(clips, pooled=True), dropping(clips, pooled=True)
        torch.manual_seed(1)
        assert torch.equal(dropping(clips, pooled=True), first)
        assert not torch.equal(first, second)


def test_patch_dropout_keeps_other_cubes_of_each_clip_and_at_least_one() -> None:
    torch.manual_seed(0)
    kept = keep_patches(make_clips(64), tokens=10, dropout=0.3)
    assert kept.shape == (64, 7)
    assert all(len(set(row)) == 7 and set(row) <= set(range(10)) for row in kept.tolist())
    assert len({tuple(sorted(row)) for row in kept.tolist()}) > 20
    assert keep_patches(make_clips(2), tokens=10, dropout=0.99).shape == (2, 1)


def test_dropout_acts_in_training_only() -> None:
    model, clips = make_vit(replace(CLIP, dropout=0.5)), make_clips()
    assert torch.equal(model.eval()(clips), make_vit(CLIP).eval()(clips))
    assert not torch.equal(model.train()(clips), model(clips))


@pytest.mark.parametrize("config", [CLIP, MEAN, PLAIN])
@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_padding_is_not_seen_and_not_pooled(config: ViTConfig, backend: Any) -> None:
    """Two clips, the second with its last cubes padded: each feature is that of its valid cubes alone."""
    model = make_vit(replace(config, stack=replace(STACK, attention=backend))).eval()
    clips, n = make_clips(), config.grid.tokens
    valid = torch.ones(2, n, dtype=torch.bool)
    valid[1, n // 2 :] = False
    with torch.no_grad():
        seen = model(clips, valid_BN=valid, pooled=True)
        alone = model.stack(model.norm_pre(model.embedding(clips[1:], selected_BS=torch.arange(n // 2)[None])))
        pooled = alone[:, 0] if config.pool == "class" else alone.mean(dim=1)
        torch.testing.assert_close(seen[1:], model.norm(pooled), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(seen[:1], model(clips[:1], pooled=True), atol=1e-5, rtol=1e-4)


def test_padded_clips_train_with_drop_path_and_checkpointing() -> None:
    valid = torch.ones(2, GRID.tokens, dtype=torch.bool)
    valid[0, 7:] = False
    found = []
    for checkpointing in ("none", "block", "sqrt"):
        stack = replace(STACK, drop_path=0.5, drop_path_rule="constant", checkpointing=checkpointing)
        model = make_vit(replace(PLAIN, stack=stack)).train()
        torch.manual_seed(3)
        model(make_clips(), valid_BN=valid, pooled=True).square().sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for other in found[1:]:
        for seen, wanted in zip(other, found[0], strict=True):
            torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", [CLIP, PLAIN])
def test_padding_refuses_masks_that_do_not_fit(config: ViTConfig) -> None:
    model, clips, n = make_vit(replace(config, patch_dropout=0.5)), make_clips(), config.grid.tokens
    empty = torch.ones(2, n, dtype=torch.bool)
    empty[1] = False
    for valid in (torch.ones(2, 5, dtype=torch.bool), torch.ones(2, n), empty):
        with pytest.raises(ValueError, match=rf"valid_BN is .* wanted bool \(2, {n}\) .* a valid cube in each clip"):
            model.eval()(clips, valid_BN=valid, pooled=True)
    with pytest.raises(ValueError, match="patch_dropout"):
        model.train()(clips, valid_BN=torch.ones(2, n, dtype=torch.bool), pooled=True)


@pytest.mark.parametrize("config", [CLIP, PLAIN])
def test_weights_start_as_the_papers_say(config: ViTConfig) -> None:
    torch.manual_seed(0)
    model = VideoViT(replace(config, stack=replace(STACK, width=128)))
    weight = model.stack.blocks[0].mlp[0].weight
    if config.positions == "learned":
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert not model.embedding.temporal_UD.any()
        assert model.embedding.position_cells_GD.std().item() == pytest.approx(0.02, rel=0.1)
    else:
        assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / (128 * 5)), rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": "max"}, "pool is 'max'"),
        ({"pool": "class", "class_token": False}, "without a class token"),
        ({"patch_dropout": 1.0}, "patch_dropout is 1.0"),
        ({"dropout": -0.5}, "dropout is -0.5"),
        ({"positions": "grid", "stack": replace(STACK, width=20)}, "width is 20, wanted a multiple of 16"),
    ],
)
def test_config_refuses_what_makes_no_network(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CLIP, **change)


def test_refuses_unknown_positions() -> None:
    with pytest.raises(ValueError, match="positions are 'rotary'"):
        VideoViT(replace(PLAIN, positions="rotary"))  # type: ignore[arg-type]
