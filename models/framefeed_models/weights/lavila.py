"""The names of LaViLa's checkpoints. It knows names and configurations, not values.

From the state dicts of facebookresearch/LaViLa.
"""

from __future__ import annotations

from framefeed_models.classifier import ClassifierConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.timesformer import TimeSformerConfig
from framefeed_models.weights.clip import head_rules, position_rule, text_rules, video_prefix
from framefeed_models.weights.forms import CLASS_ROW_IN_BATCH, NUMBER, in_batch, kernel, one, rename
from framefeed_models.weights.key_table import KeyTable

_BLOCK = {
    "norm3": "norm_time",
    "timeattn.qkv": "time.qkv",
    "timeattn.proj": "time.out",
    "norm1": "norm_space",
    "attn.qkv": "space.qkv",
    "attn.proj": "space.out",
    "norm2": "norm_mlp",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}


def lavila_table(config: DualEncoderConfig | ClassifierConfig) -> KeyTable:
    """LaViLa's dual encoder with a TimeSformer, or its classifier with one head or several.

    Trained with QuickGELU: `activation="quick_gelu"`. Its norm before the first block has an eps of 1e-5, the others
    1e-6; ours has one eps, which is some 1e-5 of the output. Raises ValueError for another video encoder.
    """
    video = config.encoder if isinstance(config, ClassifierConfig) else config.video
    if not isinstance(video, TimeSformerConfig) or video.variant != "lavila":
        raise ValueError("LaViLa: the video encoder is another, wanted TimeSformerConfig(variant='lavila')")
    ours = video_prefix(config)
    patches = "visual.patch_embed.proj.weight"
    rules = [
        one("visual.cls_token", f"{ours}embedding.class_token_D", in_batch(2)),
        position_rule("visual.pos_embed", f"{ours}embedding", form=CLASS_ROW_IN_BATCH),
        one("visual.temporal_embed", f"{ours}embedding.temporal_UD", in_batch(1)),
        one(patches, f"{ours}embedding.projection.weight", kernel(video.grid, over_time=False)),
        *rename({"visual.ln_pre": f"{ours}norm_pre", "visual.norm": f"{ours}norm"}),
    ]
    for i in range(video.stack.depth):
        rules += rename(_BLOCK, theirs=f"visual.blocks.{i}.", ours=f"{ours}blocks.{i}.")
    if isinstance(config, ClassifierConfig):
        return KeyTable(title="LaViLa classifier", rules=(*rules, *head_rules(config.heads)))
    rules += [
        one("image_projection", "video_projection_DE"),
        one("text_projection", "text_projection_DE"),
        one("logit_scale", "logit_scale", NUMBER),
        *text_rules(config.text, theirs=""),
    ]
    return KeyTable(title="LaViLa", rules=tuple(rules))
