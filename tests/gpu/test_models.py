"""The encoders on the GPU: compiled as one graph, without waiting for the device, in the memory that the paper says.

Skipped where there is no CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from framefeed_bench.gpu_speed import waiting_is_an_error  # noqa: E402
from framefeed_models.attention import Backend  # noqa: E402
from framefeed_models.attention_flash import PACKAGES  # noqa: E402
from framefeed_models.block import VIT_STACKS, Checkpointing, Stack  # noqa: E402
from framefeed_models.dual_encoder import DualEncoder, avion  # noqa: E402
from framefeed_models.timesformer import TimeSformer, TimeSformerConfig  # noqa: E402
from framefeed_models.videomae import PRESETS, VideoMAE  # noqa: E402
from framefeed_models.vit import VideoViT, clip_vit  # noqa: E402

CUDA = torch.device("cuda")
BASE = VIT_STACKS["base"]
BACKENDS: list[Backend] = ["sdpa", "sdpa-flash", "sdpa-cudnn", *(["flash"] if PACKAGES else [])]


def autocast() -> torch.autocast:
    return torch.autocast("cuda", torch.bfloat16)


def make_clips(b: int = 2, frames: int = 4) -> torch.Tensor:
    return torch.randn(b, 3, frames, 224, 224, generator=torch.Generator(CUDA).manual_seed(1), device=CUDA)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch.cuda.empty_cache()


@pytest.mark.parametrize(
    ("backend", "checkpointing"),
    [*((backend, "none") for backend in BACKENDS), ("sdpa", "block"), ("sdpa-flash", "sqrt")],
)
def test_the_stack_compiles_to_one_graph(backend: Backend, checkpointing: Checkpointing) -> None:
    """Forward and backward, bf16; the compiled one is as close to float32 as the eager one, twice over."""
    config = replace(BASE, depth=2, attention=backend, checkpointing=checkpointing)
    stack = Stack(config).to(CUDA)
    exact = Stack(replace(config, attention="reference", checkpointing="none")).to(CUDA)
    exact.load_state_dict(stack.state_dict())
    x = torch.randn(2, 785, BASE.width, device=CUDA)
    grads = []
    for forward, model, half in (
        (exact, exact, False),
        (stack, stack, True),
        (torch.compile(stack, fullgraph=True), stack, True),
    ):
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            forward(x).float().square().mean().backward()
        grads.append([parameter.grad.clone() for parameter in model.parameters()])
    for wanted, eager, compiled in zip(*grads, strict=True):
        allowed = 2 * (eager - wanted).abs().max() + 1e-3 * wanted.abs().max() + 1e-8
        assert (compiled - wanted).abs().max() <= allowed


def test_whole_encoders_compile_to_one_graph() -> None:
    clips = make_clips()
    for model in (
        VideoViT(clip_vit(replace(BASE, depth=2), frames=4)),
        TimeSformer(TimeSformerConfig(grid=clip_vit(BASE, frames=4).grid, stack=replace(BASE, depth=2))),
    ):
        model.to(CUDA).eval()
        with torch.no_grad(), autocast():
            seen, wanted = torch.compile(model, fullgraph=True)(clips, pooled=True), model(clips, pooled=True)
        assert (seen.float() - wanted.float()).abs().max() <= 0.05 * wanted.float().abs().max()


def test_the_dual_encoder_does_not_wait_for_the_device() -> None:
    model = DualEncoder(avion("CLIP_VITB16")).to(CUDA)
    tokens = torch.randint(1, 49_000, (2, 77), device=CUDA)
    clips = make_clips()
    with waiting_is_an_error(), autocast():
        loss = model(clips, tokens).logits().sum()
        model.clamp_scale()
    loss.backward()


@pytest.mark.parametrize("backend", ["sdpa", *(["flash"] if PACKAGES else [])])
def test_padded_clips_do_not_wait_for_the_device(backend: Backend) -> None:
    model = VideoViT(clip_vit(replace(BASE, depth=2, drop_path=0.1, attention=backend), frames=4)).to(CUDA).train()
    valid = torch.ones(2, 784, dtype=torch.bool)
    valid[1, 300:] = False
    clips = make_clips()
    with waiting_is_an_error(), autocast():
        feature = model(clips, valid_BN=valid, pooled=True)
    feature.sum().backward()
    model.eval()
    with torch.no_grad(), autocast():
        alone = model(clips[:1], pooled=True)
        torch.testing.assert_close(model(clips, valid_BN=valid, pooled=True)[:1], alone, atol=0.05, rtol=0.05)


def test_videomae_does_not_wait_for_the_device() -> None:
    model = VideoMAE(PRESETS["small"]).to(CUDA)
    mask = (torch.rand(2, 196).argsort(dim=1) < 176).repeat(1, 8)
    clips = make_clips(frames=16)
    with waiting_is_an_error(), autocast():
        loss = model(clips, mask).loss
    loss.backward()


def test_patch_dropout_and_timesformer_do_not_wait_for_the_device() -> None:
    clips = make_clips()
    grid = clip_vit(BASE, frames=4).grid
    for model in (
        VideoViT(replace(clip_vit(replace(BASE, depth=2), frames=4), patch_dropout=0.5)),
        TimeSformer(TimeSformerConfig(grid=grid, stack=replace(BASE, depth=2, drop_path=0.1))),
    ):
        model.to(CUDA).train()
        with waiting_is_an_error(), autocast():
            feature = model(clips, pooled=True)
        feature.sum().backward()


def kept_bytes(backend: Backend, checkpointing: Checkpointing) -> int:
    """What one ViT-B clip of 4 frames keeps on the device between forward and backward, bf16.

    The difference between two batches: the weights' copies in bf16 are kept as well, once for all clips.
    """
    model = VideoViT(clip_vit(replace(BASE, attention=backend, checkpointing=checkpointing), frames=4)).to(CUDA)
    few, many = (_kept_by(model, make_clips(clips)) for clips in (2, 6))
    return (many - few) // 4


def _kept_by(model: VideoViT, clips: torch.Tensor) -> int:
    with autocast():
        model(clips[:1], pooled=True).sum().backward()  # gradients and workspaces exist from here on
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        out = model(clips, pooled=True)
        torch.cuda.synchronize()
        kept = torch.cuda.memory_allocated() - before
    assert out.requires_grad
    return kept


def test_flash_and_checkpointing_save_the_memory_that_the_paper_says() -> None:
    """Zhao & Krähenbühl 2023, figure 3 and 4: attention is most of the plain memory; 13.8 times less with both."""
    plain, flash, both = (
        kept_bytes("reference", "none"),
        kept_bytes("sdpa-flash", "none"),
        kept_bytes("sdpa-flash", "block"),
    )
    assert flash < 0.6 * plain
    assert plain / both >= 13.8
