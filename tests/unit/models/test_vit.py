"""The video encoder: its embedding is the usual strided convolution, and it reads nothing but the selected cubes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from models.block import StackConfig
from models.positions import sincos_positions
from models.tubelets import TubeletGrid, join_cubes
from models.vit import VideoViT

GRID = TubeletGrid(frames=4, height_px=8, width_px=12, patch_px=4)
STACK = StackConfig(width=16, depth=2, heads=2)


def make_encoder(stack: StackConfig = STACK) -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(GRID, stack=stack).eval()


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
        encoder.embedding.weight.copy_(kernel.permute(0, 2, 3, 4, 1).flatten(1))
        nn.init.normal_(encoder.embedding.bias)
    encoder.stack = nn.Identity()  # type: ignore[assignment]
    encoder.norm = nn.Identity()  # type: ignore[assignment]
    convolved = conv3d(clips, kernel, encoder.embedding.bias, stride=(2, 4, 4)).flatten(2).mT
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
