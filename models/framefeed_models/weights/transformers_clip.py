"""CLIP as `transformers` names it: the way to OpenAI's weights as safetensors, without its TorchScript archives.

It knows names and configurations, not values, and does not import transformers.
"""

from __future__ import annotations

from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.clip import position_rule
from framefeed_models.weights.forms import CLASS_ROW, FUSED_QKV, NUMBER, TRANSPOSED, kernel, one, rename, zeros
from framefeed_models.weights.key_table import KeyTable, Rule

_BLOCK = {
    "layer_norm1": "norm_attention",
    "self_attn.out_proj": "attention.out",
    "layer_norm2": "norm_mlp",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
# Early versions saved the numbers 0, 1, 2… as if they were weights.
POSITION_NUMBERS = tuple(f"{tower}_model.embeddings.position_ids" for tower in ("vision", "text"))


def transformers_clip_table(config: DualEncoderConfig) -> KeyTable:
    """`CLIPModel`, inflated to video as `clip_table` does. Its weights want QuickGELU, as OpenAI's.

    Raises ValueError for another video encoder than a ViT.
    """
    video, vision, text = config.video, "vision_model", "text_model"
    if not isinstance(video, ViTConfig):
        raise ValueError("transformers' CLIP: the video encoder is a TimeSformer, wanted a ViT")
    patches = f"{vision}.embeddings.patch_embedding.weight"
    rules = [
        one(f"{vision}.embeddings.class_embedding", "video.embedding.class_token_D"),
        position_rule(f"{vision}.embeddings.position_embedding.weight", "video.embedding", form=CLASS_ROW),
        one(patches, "video.embedding.projection.weight", kernel(video.grid, over_time=False)),
        Rule(theirs=(), ours=("video.embedding.temporal_UD",), form=zeros(video.grid.slots, video.stack.width)),
        *rename({f"{vision}.pre_layrnorm": "video.norm_pre", f"{vision}.post_layernorm": "video.norm"}),
        *_blocks(video.stack.depth, theirs=vision, ours="video"),
        one(f"{text}.embeddings.position_embedding.weight", "text.position_LD"),
        one(f"{text}.embeddings.token_embedding.weight", "text.token_embedding.weight"),
        *rename({f"{text}.final_layer_norm": "text.norm"}),
        *_blocks(config.text.stack.depth, theirs=text, ours="text"),
        one("visual_projection.weight", "video_projection_DE", TRANSPOSED),
        one("text_projection.weight", "text_projection_DE", TRANSPOSED),
        one("logit_scale", "logit_scale", NUMBER),
    ]
    return KeyTable(title="transformers' CLIP", rules=tuple(rules))


def _blocks(depth: int, *, theirs: str, ours: str) -> list[Rule]:
    rules = []
    for i in range(depth):
        old, new = f"{theirs}.encoder.layers.{i}", f"{ours}.stack.blocks.{i}"
        rules += rename(_BLOCK, theirs=f"{old}.", ours=f"{new}.")
        rules += [
            Rule(
                theirs=tuple(f"{old}.self_attn.{part}_proj.{kind}" for part in "qkv"),
                ours=(f"{new}.attention.qkv.{kind}",),
                form=FUSED_QKV,
            )
            for kind in ("weight", "bias")
        ]
    return rules
