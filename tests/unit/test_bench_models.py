"""The models' bench: the count is the truth, the paper's ratios hold, and the peer computes what ours does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from framefeed.errors import BadInput
from framefeed_bench import models as bench_models
from framefeed_bench.activations import KINDS, Saved, count_saved
from framefeed_bench.gpu_duel import clip_loss
from framefeed_bench.gpu_speed import largest_batch
from framefeed_bench.model_cases import VARIANTS, ModelCase, all_cases
from framefeed_bench.models import ModelsBench, ratios, rows_of
from framefeed_bench.peer_towers import PeerDualEncoder
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from tests.unit.models.foreign_checkpoints import TIMESFORMER_DUAL, VIT_DUAL

DEPTH, HEADS, WIDTH, TOKENS, MLP, LAST = 12, 12, 768, 785, 3072, 2


def counted(variant: str, *, encoder: str = "ViT-B", half: bool = True) -> Saved:
    return count_saved(ModelCase(encoder=encoder, frames=4, variant=variant).config(), half=half)


@pytest.fixture(scope="module")
def vit() -> dict[tuple[str, bool], Saved]:
    return {(variant, half): counted(variant, half=half) for variant in VARIANTS for half in (True, False)}


Counts = dict[tuple[str, bool], Saved]


@pytest.mark.slow
def test_flash_and_checkpointing_save_what_the_paper_says(vit: Counts) -> None:
    """Zhao & Krähenbühl 2023, figures 3 and 4: 13.8 times, with a checkpoint a block or every √L."""
    for variant in ("+checkpointing", "+checkpointing √L"):
        assert vit["plain", False].video_bytes / vit[variant, False].video_bytes >= 13.8
        assert vit["plain", True].on_cuda().video_bytes / vit[variant, True].on_cuda().video_bytes >= 13.8
    assert vit["plain", True].video_bytes / vit["+checkpointing √L", True].video_bytes >= 13.8


@pytest.mark.slow
def test_flash_keeps_no_attention_weights(vit: Counts) -> None:
    for half in (True, False):
        plain, flash = vit["plain", half], vit["+flash", half]
        assert flash.by_kind["attention"] == 0
        queries = (DEPTH - 1) * TOKENS + LAST  # the last block asks for the class token alone
        assert plain.by_kind["attention"] == HEADS * queries * TOKENS * (2 if half else 4)
        for kind in ("LayerNorm", "MLP", "other"):
            assert flash.by_kind[kind] == plain.by_kind[kind]


@pytest.mark.slow
def test_each_kind_is_what_its_equation_keeps(vit: Counts) -> None:
    """Float32: the inputs of norms and linear layers, GELU's input, q, k, v, the output and the log-sum-exp."""
    row = WIDTH * 4
    flash, outputs = vit["+flash", False].by_kind, (DEPTH - 1) * TOKENS + LAST
    assert flash["MLP"] == outputs * (row + 2 * MLP * 4)
    assert flash["projections"] == DEPTH * TOKENS * (row + 3 * row) + outputs * (row + HEADS * 4)


@pytest.mark.slow
def test_a_checkpoint_keeps_the_inputs_of_blocks(vit: Counts) -> None:
    row = TOKENS * WIDTH * 4
    for half in (True, False):
        block, groups = vit["+checkpointing", half], vit["+checkpointing √L", half]
        assert block.in_blocks == groups.in_blocks == 0
        assert block.video_bytes - groups.video_bytes == (DEPTH - 3) * row


@pytest.mark.slow
def test_timesformers_weights_are_those_of_its_groups() -> None:
    """Time sees 4 patches and the class token, space 196 and the class token, the class token all, twice."""
    plain, flash = (counted(variant, encoder="TimeSformer-B") for variant in ("plain", "+flash"))
    weights = 784 * (4 + 1) + 784 * (196 + 1) + 2 * 785
    assert plain.by_kind["attention"] == DEPTH * HEADS * weights * 2
    assert flash.by_kind["attention"] == 0


def really_kept(config: DualEncoderConfig, pairs: int) -> int:
    """The same count on tensors that exist."""
    model, grid = DualEncoder(config), config.video.grid
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    clips = torch.randn(pairs, 3, grid.frames, grid.height_px, grid.width_px)
    tokens = torch.zeros(pairs, config.text.context, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16), saved_tensors_hooks(pack, lambda x: x):
        kept = model(clips, tokens).logits()
    assert kept.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("config", [VIT_DUAL, TIMESFORMER_DUAL], ids=["ViT", "TimeSformer"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_fake_tensors_count_as_real_ones(config: DualEncoderConfig, variant: str) -> None:
    wanted = ModelCase(encoder="ViT-B", frames=4, variant=variant).config().video.stack
    video = replace(
        config.video,
        stack=replace(config.video.stack, attention=wanted.attention, checkpointing=wanted.checkpointing),
    )
    config = replace(config, video=video)
    assert count_saved(config, half=True).total_bytes == really_kept(config, 3) - really_kept(config, 2)


def test_cudas_softmax_is_kept_twice() -> None:
    saved = Saved(by_kind=dict.fromkeys(KINDS, 10), in_blocks=40)
    assert saved.on_cuda().by_kind == dict.fromkeys(KINDS, 10) | {"attention": 30}
    assert (saved.on_cuda().in_blocks, saved.total_bytes, saved.video_bytes) == (60, 60, 50)


@given(limit=st.integers(0, 5000), first=st.integers(1, 64), most=st.integers(64, 4096))
def test_the_largest_batch_is_found(limit: int, first: int, most: int) -> None:
    asked = []
    found = largest_batch(lambda b: asked.append(b) or b <= limit, first=first, most=most)
    wanted = min(limit, most)
    assert found <= wanted <= found + max(1, found // 16)
    assert max(asked) <= most
    assert len(asked) < 25


def test_the_peer_computes_what_ours_does() -> None:
    torch.manual_seed(0)
    ours = DualEncoder(VIT_DUAL).eval()
    theirs = PeerDualEncoder(ours).eval()
    clips = torch.randn(3, 3, 3, 32, 32)
    tokens = torch.zeros(3, 12, dtype=torch.int64)
    for row, length in zip(tokens, (3, 7, 12), strict=True):
        row[: length - 1] = torch.randint(1, 50, (length - 1,))
        row[length - 1] = VIT_DUAL.text.vocabulary - 1
    seen, wanted = ours(clips, tokens), theirs(clips, tokens)
    torch.testing.assert_close(seen.video_BE, wanted.video_BE, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.text_BE, wanted.text_BE, atol=1e-5, rtol=0)
    torch.testing.assert_close(clip_loss(seen), clip_loss(wanted), atol=1e-4, rtol=0)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert theirs.clip.config.vision_config._attn_implementation == "sdpa"


@pytest.mark.slow
def test_the_verb_writes_json_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [case for case in all_cases() if case.encoder == "ViT-B" and case.frames == 4][:3]
    monkeypatch.setattr(bench_models, "all_cases", lambda: few)
    ModelsBench(out=tmp_path / "results" / "models.json", cpu_only=True).run()
    result = json.loads((tmp_path / "results" / "models.json").read_text())
    assert {"processor", "commit", "date", "torch", "paper", "counted", "plain_over"} <= result.keys()
    assert result["plain_over"]["bf16 on CUDA"]["ViT-B, 4 frames, +checkpointing"]["memory"] >= 13.8
    rows = result["counted"]["bf16"]
    assert [row["variant"] for row in rows] == list(VARIANTS[:3])
    assert all(row["peak_mb"] >= row["video_mb"] for row in rows)
    assert (tmp_path / "results" / "models.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_rows_say_how_much_better_each_is(vit: Counts) -> None:
    saved = {ModelCase(encoder="ViT-B", frames=4, variant=v): vit[v, False] for v in VARIANTS}
    rows = rows_of(saved, gpu_bytes=24e9)
    found = ratios(rows)
    assert found["ViT-B, 4 frames, plain"] == {"memory": 1.0, "batch": 1.0}
    assert found["ViT-B, 4 frames, +flash"]["memory"] == round(rows[0]["video_mb"] / rows[1]["video_mb"], 2)
    flash, block, groups = rows[1:]
    assert block["peak_mb"] - block["video_mb"] < groups["peak_mb"] - groups["video_mb"] < flash["peak_mb"] / 2
    assert rows_of(saved, gpu_bytes=1e9)[0]["largest_batch"] == 0, "the weights alone do not fit"


def test_numbers_that_make_no_bench_are_refused() -> None:
    for options in ({"batch": 0}, {"gpu_gb": 0.0}):
        with pytest.raises(BadInput, match="wanted more than 0"):
            ModelsBench(**options).run()
