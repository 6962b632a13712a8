"""Names and shapes of checkpoints of others, written down from their code, at sizes that suit a test.

Sizes: D video width, T text width, F frames, P patch, G cells, E joint width, V vocabulary, L context.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from framefeed_models.block import StackConfig
from framefeed_models.classifier import ClassifierConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.text import TextConfig
from framefeed_models.timesformer import TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.vit import clip_vit

D, T, F, P, G, E, V, L = 48, 32, 3, 8, 16, 24, 60, 12
HIDDEN, TEXT_HIDDEN, DEPTH = 96, 64, 2
Shapes = dict[str, tuple[int, ...]]

VIDEO = StackConfig(width=D, depth=DEPTH, heads=4, mlp_ratio=2.0)
TEXT = TextConfig(
    stack=StackConfig(width=T, depth=DEPTH, heads=2, mlp_ratio=2.0, norm_eps=1e-5, causal=True), vocabulary=V, context=L
)
FRAMES = TubeletGrid(frames=F, height_px=32, width_px=32, tubelet_frames=1, patch_px=P)
VIT_DUAL = DualEncoderConfig(video=clip_vit(VIDEO, frames=F, size_px=32, patch_px=P), text=TEXT, joint=E)
TIMESFORMER_DUAL = DualEncoderConfig(video=TimeSformerConfig(grid=FRAMES, stack=VIDEO), text=TEXT, joint=E)
VIT_CLASSIFIER = ClassifierConfig(encoder=VIT_DUAL.video, heads={"action": 5})
TIMESFORMER_CLASSIFIER = ClassifierConfig(encoder=TIMESFORMER_DUAL.video, heads={"verb": 3, "noun": 4, "action": 5})
MAE = VideoMAEConfig(
    grid=TubeletGrid(frames=4, height_px=32, width_px=32, patch_px=P),
    encoder=VIDEO,
    decoder=StackConfig(width=T, depth=DEPTH, heads=2, mlp_ratio=2.0),
)
MAE_CLASSIFIER = ClassifierConfig(encoder=MAE.vit, heads={"action": 5})


def random_weights(shapes: Shapes) -> dict[str, Tensor]:
    """Every name with random values, no two alike."""
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def affine(names: Iterable[str], width: int) -> Shapes:
    return {f"{name}.{kind}": (width,) for name in names for kind in ("weight", "bias")}


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def clip_blocks(prefix: str, width: int, hidden: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(DEPTH):
        block = f"{prefix}.resblocks.{i}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= linear(f"{block}.attn.out_proj", width, width)
        shapes |= linear(f"{block}.mlp.c_fc", width, hidden) | linear(f"{block}.mlp.c_proj", hidden, width)
        shapes |= affine((f"{block}.ln_1", f"{block}.ln_2"), width)
    return shapes


def clip_text(prefix: str) -> Shapes:
    return {
        f"{prefix}positional_embedding": (L, T),
        f"{prefix}token_embedding.weight": (V, T),
        **affine((f"{prefix}ln_final",), T),
        **clip_blocks(f"{prefix}transformer", T, TEXT_HIDDEN),
    }


def openai_clip(joint: int = E) -> Shapes:
    return {
        "logit_scale": (),
        "text_projection": (T, joint),
        "visual.proj": (D, joint),
        "visual.class_embedding": (D,),
        "visual.positional_embedding": (1 + G, D),
        "visual.conv1.weight": (D, 3, P, P),
        **affine(("visual.ln_pre", "visual.ln_post"), D),
        **clip_blocks("visual.transformer", D, HIDDEN),
        **clip_text(""),
    }


def avion_video(*, flash: bool, fast: bool) -> Shapes:
    shapes: Shapes = {
        "visual.class_embedding": (D,),
        "visual.positional_embedding": (1 + G, D),
        "visual.temporal_embedding": (F, D),
        "visual.conv1.weight": (D, 3 * P * P) if fast else (D, 3, P, P),
        **affine(("visual.ln_pre", "visual.ln_post"), D),
    }
    if not flash:
        return shapes | clip_blocks("visual.transformer", D, HIDDEN)
    for i in range(DEPTH):
        block = f"visual.transformer.resblocks.{i}"
        shapes |= linear(f"{block}.attn.Wqkv", D, 3 * D) | linear(f"{block}.attn.out_proj", D, D)
        shapes |= linear(f"{block}.mlp.fc1", D, HIDDEN) | linear(f"{block}.mlp.fc2", HIDDEN, D)
        shapes |= affine((f"{block}.ln_1", f"{block}.ln_2"), D)
    return shapes


def avion(*, flash: bool, fast: bool) -> Shapes:
    joint = {"logit_scale": (), "visual.image_projection": (D, E), "textual.text_projection": (T, E)}
    return {**avion_video(flash=flash, fast=fast), **joint, **clip_text("textual.")}


def avion_classifier() -> Shapes:
    return avion_video(flash=True, fast=True) | linear("fc_cls", D, 5)


def lavila_video() -> Shapes:
    shapes: Shapes = {
        "visual.cls_token": (1, 1, D),
        "visual.pos_embed": (1, 1 + G, D),
        "visual.temporal_embed": (1, F, D),
        "visual.patch_embed.proj.weight": (D, 3, P, P),
        **affine(("visual.ln_pre", "visual.norm"), D),
    }
    for i in range(DEPTH):
        block = f"visual.blocks.{i}"
        shapes |= affine([f"{block}.norm{n}" for n in (1, 2, 3)], D)
        for attention in ("attn", "timeattn"):
            shapes |= linear(f"{block}.{attention}.qkv", D, 3 * D) | linear(f"{block}.{attention}.proj", D, D)
        shapes |= linear(f"{block}.mlp.fc1", D, HIDDEN) | linear(f"{block}.mlp.fc2", HIDDEN, D)
    return shapes


def lavila() -> Shapes:
    joint = {"logit_scale": (), "image_projection": (D, E), "text_projection": (T, E)}
    return {**lavila_video(), **joint, **clip_text("")}


def lavila_classifier() -> Shapes:
    heads = linear("fc_cls.0", D, 3) | linear("fc_cls.1", D, 4) | linear("fc_cls.2", D, 5)
    return lavila_video() | heads


def videomae_blocks(prefix: str, width: int, hidden: int, *, flash: bool) -> Shapes:
    shapes: Shapes = {}
    for i in range(DEPTH):
        block = f"{prefix}blocks.{i}"
        if flash:
            shapes |= linear(f"{block}.attn.Wqkv", width, 3 * width) | linear(f"{block}.attn.out_proj", width, width)
        else:
            shapes |= {f"{block}.attn.qkv.weight": (3 * width, width)} | linear(f"{block}.attn.proj", width, width)
            shapes |= {f"{block}.attn.{part}_bias": (width,) for part in "qv"}
        shapes |= affine((f"{block}.norm1", f"{block}.norm2"), width)
        shapes |= linear(f"{block}.mlp.fc1", width, hidden) | linear(f"{block}.mlp.fc2", hidden, width)
    return shapes


def videomae_encoder(prefix: str, norm: str, *, flash: bool) -> Shapes:
    patches = {f"{prefix}patch_embed.proj.weight": (D, 3, 2, P, P), f"{prefix}patch_embed.proj.bias": (D,)}
    return {**patches, **affine((norm,), D), **videomae_blocks(prefix, D, HIDDEN, flash=flash)}


def videomae(*, flash: bool = False) -> Shapes:
    return {
        **videomae_encoder("encoder.", "encoder.norm", flash=flash),
        "encoder_to_decoder.weight": (T, D),
        "mask_token": (1, 1, T),
        **videomae_blocks("decoder.", T, TEXT_HIDDEN, flash=flash),
        **affine(("decoder.norm",), T),
        **linear("decoder.head", T, 3 * 2 * P * P),
    }


def videomae_classifier() -> Shapes:
    return videomae_encoder("", "fc_norm", flash=False) | linear("head", D, 5)


def transformers_blocks(prefix: str, width: int, hidden: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(DEPTH):
        block, attention = f"{prefix}.{i}", f"{prefix}.{i}.attention.attention"
        shapes |= {f"{attention}.{part}.weight": (width, width) for part in ("query", "key", "value")}
        shapes |= {f"{attention}.{part}_bias": (width,) for part in "qv"}
        shapes |= linear(f"{block}.attention.output.dense", width, width)
        shapes |= linear(f"{block}.intermediate.dense", width, hidden) | linear(f"{block}.output.dense", hidden, width)
        shapes |= affine((f"{block}.layernorm_before", f"{block}.layernorm_after"), width)
    return shapes


def transformers_encoder(prefix: str, norm: str) -> Shapes:
    projection = f"{prefix}embeddings.patch_embeddings.projection"
    patches = {f"{projection}.weight": (D, 3, 2, P, P), f"{projection}.bias": (D,)}
    return {**patches, **affine((norm,), D), **transformers_blocks(f"{prefix}encoder.layer", D, HIDDEN)}


def transformers_videomae() -> Shapes:
    return {
        **transformers_encoder("videomae.", "videomae.layernorm"),
        "encoder_to_decoder.weight": (T, D),
        "mask_token": (1, 1, T),
        **transformers_blocks("decoder.decoder_layers", T, TEXT_HIDDEN),
        **affine(("decoder.norm",), T),
        **linear("decoder.head", T, 3 * 2 * P * P),
    }


def transformers_classifier() -> Shapes:
    return transformers_encoder("videomae.", "fc_norm") | linear("classifier", D, 5)


def transformers_clip_tower(prefix: str, width: int, hidden: int) -> Shapes:
    shapes: Shapes = {}
    for i in range(DEPTH):
        block = f"{prefix}.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{block}.self_attn.{part}", width, width)
        shapes |= linear(f"{block}.mlp.fc1", width, hidden) | linear(f"{block}.mlp.fc2", hidden, width)
        shapes |= affine((f"{block}.layer_norm1", f"{block}.layer_norm2"), width)
    return shapes


def transformers_clip() -> Shapes:
    return {
        "logit_scale": (),
        "text_projection.weight": (E, T),
        "visual_projection.weight": (E, D),
        "text_model.embeddings.token_embedding.weight": (V, T),
        "text_model.embeddings.position_embedding.weight": (L, T),
        **affine(("text_model.final_layer_norm",), T),
        **transformers_clip_tower("text_model", T, TEXT_HIDDEN),
        "vision_model.embeddings.class_embedding": (D,),
        "vision_model.embeddings.patch_embedding.weight": (D, 3, P, P),
        "vision_model.embeddings.position_embedding.weight": (1 + G, D),
        **affine(("vision_model.pre_layrnorm", "vision_model.post_layernorm"), D),
        **transformers_clip_tower("vision_model", D, HIDDEN),
    }
