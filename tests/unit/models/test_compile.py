"""torch.compile takes every encoder as one graph: dynamo traces it whole, without a break, and gets the same numbers.

The backend "eager" runs the traced graph as it is, so these need no compiler; tests/gpu compiles for real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from framefeed_models.block import Stack, StackConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.packing import make_packing
from framefeed_models.text import TextConfig
from framefeed_models.timesformer import TimeSformer, TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAE, VideoMAEConfig
from framefeed_models.vit import VideoViT, ViTConfig, clip_vit

pytestmark = pytest.mark.slow  # tracing takes seconds a model

STACK = StackConfig(width=16, depth=2, heads=2, drop_path=0.2, layer_scale=0.5)
PLAIN = StackConfig(width=16, depth=2, heads=2)
GRID = TubeletGrid(frames=4, height_px=8, width_px=8, patch_px=4)
CLIP = clip_vit(replace(STACK, activation="quick_gelu"), frames=4, size_px=8, patch_px=4)
TEXT = TextConfig(stack=replace(PLAIN, causal=True), vocabulary=9, context=4)


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    traced: Callable[..., Tensor] = torch.compile(function, backend="eager", fullgraph=True)
    return traced


@pytest.mark.parametrize("attention", ["reference", "sdpa", "sdpa-flash"])
@pytest.mark.parametrize("checkpointing", ["none", "block", "sqrt"])
def test_the_stack_is_one_graph_forward_and_back(attention: str, checkpointing: str) -> None:
    torch.manual_seed(0)
    stack = Stack(replace(STACK, drop_path=0.0, attention=attention, checkpointing=checkpointing))  # type: ignore[arg-type]
    x = torch.randn(2, 5, 16)
    found = []
    for forward in (stack, compiled(stack)):
        stack.zero_grad()
        forward(x).square().sum().backward()
        found.append([p.grad.clone() for p in stack.parameters() if p.grad is not None])
    for seen, wanted in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(seen, wanted)


def test_packed_clips_are_one_graph() -> None:
    stack, packing = Stack(STACK).train(), make_packing([3, 5], device=torch.device("cpu"))
    x = torch.randn(1, 8, 16)
    torch.manual_seed(1)
    wanted = stack(x, packing)
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(stack)(x, packing), wanted)


def test_one_graph_serves_training_with_drop_path() -> None:
    stack = Stack(STACK).train()
    x = torch.randn(8, 5, 16)
    torch.manual_seed(1)
    wanted = stack(x)
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(stack)(x), wanted)


@pytest.mark.parametrize(
    "model",
    [
        VideoViT(ViTConfig(grid=GRID, stack=STACK)),
        VideoViT(CLIP),
        VideoViT(replace(CLIP, patch_dropout=0.5, dropout=0.1)),
        TimeSformer(TimeSformerConfig(grid=CLIP.grid, stack=PLAIN)),
        TimeSformer(TimeSformerConfig(grid=CLIP.grid, stack=PLAIN, variant="original", norm_pre=False)),
    ],
    ids=["videomae", "clip", "patch_dropout", "lavila", "timesformer"],
)
def test_every_encoder_is_one_graph_in_training(model: VideoViT | TimeSformer) -> None:
    model.train()
    clips = torch.randn(3, 3, 4, 8, 8)
    torch.manual_seed(1)
    wanted = model(clips, pooled=True)
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(model)(clips, pooled=True), wanted)


def test_the_encoder_of_visible_cubes_is_one_graph() -> None:
    model = VideoViT(ViTConfig(grid=GRID, stack=PLAIN)).eval()
    clips, selected = torch.randn(2, 3, 4, 8, 8), torch.tensor([[0, 3], [5, 1]])
    seen = compiled(lambda x, cubes: model(x, selected_BS=cubes))(clips, selected)
    torch.testing.assert_close(seen, model(clips, selected_BS=selected))


def test_the_dual_encoder_is_one_graph() -> None:
    model = DualEncoder(DualEncoderConfig(video=CLIP, text=TEXT, joint=8)).eval()
    clips, tokens = torch.randn(2, 3, 4, 8, 8), torch.tensor([[1, 2, 8, 0], [3, 8, 0, 0]])
    seen = torch.compile(model, backend="eager", fullgraph=True)(clips, tokens)
    torch.testing.assert_close(seen.logits(), model(clips, tokens).logits())


def test_videomae_is_one_graph_behind_its_mask() -> None:
    model = VideoMAE(VideoMAEConfig(grid=GRID, encoder=PLAIN, decoder=PLAIN))
    clips, mask = torch.randn(2, 3, 4, 8, 8), torch.tensor([[True, False, False, True] * 2] * 2)
    graphs = []

    def note(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(
            sum(node.target is torch.nn.functional.scaled_dot_product_attention for node in graph.graph.nodes)
        )
        return graph

    seen = torch.compile(model, backend=note)(clips, mask).loss
    torch.testing.assert_close(seen, model(clips, mask).loss)
    assert max(graphs) == sum(graphs) == 4, "all blocks of encoder and decoder in one graph"


def test_under_autocast_too() -> None:
    model: nn.Module = VideoViT(CLIP).eval()
    clips = torch.randn(2, 3, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(model)(clips), model(clips))
