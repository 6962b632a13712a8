"""TimeSformer against `transformers`, same weights; LaViLa's against its equations, and where the two differ."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from torch import Tensor

from framefeed_models.block import StackConfig
from framefeed_models.timesformer import FrozenInTimeBlock, TimeSformer, TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.weights.forms import CLASS_ROW_IN_BATCH, in_batch, kernel, one, rename
from framefeed_models.weights.key_table import KeyTable, Rule, import_weights
from tests.unit.models.parity import Weights, gradients, largest_difference, randomise

GRID = TubeletGrid(frames=3, height_px=32, width_px=32, tubelet_frames=1, patch_px=8)
STACK = StackConfig(width=48, depth=2, heads=4, mlp_ratio=2.0)
ORIGINAL = TimeSformerConfig(grid=GRID, stack=STACK, variant="original", patch_bias=True, norm_pre=False)
LAVILA = TimeSformerConfig(grid=GRID, stack=replace(STACK, activation="quick_gelu"))


def make_clips(b: int = 2) -> Tensor:
    return torch.randn(b, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def make_model(config: TimeSformerConfig) -> TimeSformer:
    torch.manual_seed(0)
    model = TimeSformer(config)
    randomise(model)
    return model


BLOCK = {
    "temporal_layernorm": "norm_time",
    "temporal_attention.attention.qkv": "time.qkv",
    "temporal_attention.output.dense": "time.out",
    "temporal_dense": "time_out",
    "layernorm_before": "norm_space",
    "attention.attention.qkv": "space.qkv",
    "attention.output.dense": "space.out",
    "layernorm_after": "norm_mlp",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.2",
}


def our_names(theirs: Weights) -> Weights:
    """Weights or gradients of theirs under our names."""
    positions = ("embedding.position_class_D", "embedding.position_cells_GD")
    patches = "embeddings.patch_embeddings.projection"
    rules = [
        one(f"{patches}.weight", "embedding.projection.weight", kernel(GRID, over_time=False)),
        one(f"{patches}.bias", "embedding.projection.bias"),
        one("embeddings.cls_token", "embedding.class_token_D", in_batch(2)),
        Rule(theirs=("embeddings.position_embeddings",), ours=positions, form=CLASS_ROW_IN_BATCH),
        one("embeddings.time_embeddings", "embedding.temporal_UD", in_batch(1)),
        *rename({"layernorm": "norm"}),
    ]
    for i in range(STACK.depth):
        rules += rename(BLOCK, theirs=f"encoder.layer.{i}.", ours=f"blocks.{i}.")
    return import_weights(theirs, KeyTable(title="transformers' TimeSformer", rules=tuple(rules)))


def test_outputs_and_gradients_are_theirs() -> None:
    config = transformers.TimesformerConfig(
        image_size=32,
        patch_size=8,
        num_frames=3,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        layer_norm_eps=1e-6,
        drop_path_rate=0,
    )
    theirs = transformers.TimesformerModel(config).train()
    randomise(theirs)
    ours = TimeSformer(ORIGINAL).train()
    ours.load_state_dict(our_names(dict(theirs.state_dict())))
    clips = make_clips()
    seen, wanted = ours(clips), theirs(clips.transpose(1, 2)).last_hidden_state
    # Theirs numbers patches place by place, ours frame by frame.
    wanted = torch.cat((wanted[:, :1], wanted[:, 1:].unflatten(1, (16, 3)).transpose(1, 2).flatten(1, 2)), dim=1)
    assert (seen - wanted).abs().max() <= 1e-4
    torch.testing.assert_close(ours(clips, pooled=True), seen[:, 0])
    target = torch.randn(seen.shape, generator=torch.Generator().manual_seed(3))
    (seen * target).mean().backward()
    (wanted * target).mean().backward()
    assert largest_difference(gradients(ours), our_names(gradients(theirs))) <= 1e-3


def attend_by_loops(layer: torch.nn.Module, x: Tensor, groups: list[list[int]]) -> Tensor:
    """LaViLa's attention, token by token: token 0 sees all, a patch sees token 0 and its group."""
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    seen_by = {0: list(range(x.shape[1]))} | {n: [0, *group] for group in groups for n in group}
    out = torch.zeros_like(x)
    for n, keys in seen_by.items():
        for h in range(layer.heads):
            part = slice(h * 12, h * 12 + 12)
            weights = (k[:, keys, part] @ q[:, n, part, None]).squeeze(-1) / 12**0.5
            out[:, n, part] = (weights.softmax(-1)[:, None] @ v[:, keys, part])[:, 0]
    return layer.out(out)


def test_lavilas_block_is_its_equations() -> None:
    """t = time(norm x); s = space(norm(x + t)); x + s + mlp(norm(x + s)): the residual skips t."""
    block = make_model(LAVILA).blocks[0].eval()
    x = torch.randn(2, 1 + 3 * 16, 48, generator=torch.Generator().manual_seed(2))
    places = [[1 + t * 16 + g for t in range(3)] for g in range(16)]
    frames = [[1 + t * 16 + g for g in range(16)] for t in range(3)]
    with torch.no_grad():
        time = attend_by_loops(block.time, block.norm_time(x), places)
        space = attend_by_loops(block.space, block.norm_space(x + time), frames)
        y = x + space
        hidden = y + block.mlp[2](_quick_gelu(block.mlp[0](block.norm_mlp(y))))
        torch.testing.assert_close(block(x), hidden, atol=1e-4, rtol=1e-4)


def _quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def test_where_lavila_differs_from_the_original() -> None:
    """In LaViLa time attention reaches later blocks only through space attention, and it sees the class token.

    With space attention silenced the original still moves information through time, LaViLa's block does not.
    """
    for config, moves in ((ORIGINAL, True), (LAVILA, False)):
        block = make_model(config).blocks[0].eval()
        torch.nn.init.zeros_(block.space.out.weight)
        x = torch.randn(1, 1 + 3 * 16, 48, generator=torch.Generator().manual_seed(2))
        other_frame = x.clone()
        other_frame[:, 1 + 32 :] += 1.0
        with torch.no_grad():
            assert torch.equal(block(x)[:, 1:17], block(other_frame)[:, 1:17]) != moves
    for config, tokens in ((ORIGINAL, 3), (LAVILA, 49)):
        block, seen = make_model(config).blocks[0].eval(), []
        block.time.qkv.register_forward_hook(lambda _, args, out, seen=seen: seen.append(out.shape[1]))
        block(torch.zeros(1, 1 + 3 * 16, 48))
        assert seen == [tokens], "the frames of one place, or all patches and the class token"


def test_a_block_begins_as_the_image_block() -> None:
    """As LaViLa starts it, time attention adds nothing, so that CLIP's weights give CLIP's features of each frame."""
    torch.manual_seed(0)
    block = TimeSformer(LAVILA).blocks[0].eval()
    assert isinstance(block, FrozenInTimeBlock)
    x = torch.randn(1, 1 + 3 * 16, 48)
    shuffled = x.clone()
    shuffled[:, 1 + 32 :] = torch.randn(1, 16, 48)
    with torch.no_grad():
        assert not block.time(x).any()
        torch.testing.assert_close(block(x)[:, 1:17], block(shuffled)[:, 1:17])
    block(x).square().sum().backward()
    assert block.time.qkv.weight.grad.any(), "time attention can learn from there"


@pytest.mark.parametrize("config", [ORIGINAL, LAVILA])
def test_backends_and_checkpointing_give_the_same_gradients(config: TimeSformerConfig) -> None:
    found = []
    for change in ({}, {"attention": "reference"}, {"checkpointing": "block"}, {"checkpointing": "sqrt"}):
        model = make_model(replace(config, stack=replace(config.stack, **change))).train()
        model(make_clips(), pooled=True).square().sum().backward()
        found.append(gradients(model))
    for other in found[1:]:
        assert largest_difference(other, found[0]) <= 1e-3


@pytest.mark.parametrize("config", [ORIGINAL, LAVILA])
def test_drop_path_acts_in_training_only(config: TimeSformerConfig) -> None:
    model = make_model(replace(config, stack=replace(config.stack, drop_path=0.5)))
    clips = make_clips(4)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(clips, pooled=True), make_model(config).eval()(clips, pooled=True))
        assert torch.equal(model(clips, pooled=True), model(clips, pooled=True))
        model.train()
        torch.manual_seed(1)
        first, second = model(clips, pooled=True), model(clips, pooled=True)
        torch.manual_seed(1)
        assert torch.equal(model(clips, pooled=True), first)
        assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "joint"}, "variant is 'joint'"),
        ({"grid": TubeletGrid(frames=4, height_px=32, width_px=32)}, "cubes span 2 frames, wanted 1"),
        ({"stack": replace(STACK, causal=True)}, "causal"),
        ({"stack": replace(STACK, layer_scale=0.1)}, "layer scale"),
    ],
)
def test_refuses_what_no_timesformer_is(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(LAVILA, **change)
