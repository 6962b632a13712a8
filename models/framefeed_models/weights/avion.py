"""The names of AVION's checkpoints. It knows names and configurations, not values.

From the state dicts of zhaoyue-zephyrus/AVION, whose code is told from its paper where the two differ.
"""

from __future__ import annotations

from framefeed_models.classifier import ClassifierConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.clip import clip_blocks, head_rules, position_rule, text_rules, video_prefix
from framefeed_models.weights.forms import CLASS_ROW, NUMBER, flat_kernel, kernel, one, rename
from framefeed_models.weights.key_table import KeyTable, Rule

_FLASH_BLOCK = {
    "ln_1": "norm_attention",
    "attn.Wqkv": "attention.qkv",
    "attn.out_proj": "attention.out",
    "ln_2": "norm_mlp",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}


def avion_table(config: DualEncoderConfig | ClassifierConfig, *, flash: bool, fast_patches: bool) -> KeyTable:
    """AVION's dual encoder or classifier, trained with flash-attn or without, with the fast first layer or without.

    These weights were trained with exact GELU, though the code asks for QuickGELU: `use_quick_gelu=True` is swallowed
    by **kwargs. Run them with `activation="gelu"`, the default of `dual_encoder.avion`, and pixels normalised with
    LaViLa's constants, typo included. Raises ValueError for another video encoder than a ViT.
    """
    video = config.encoder if isinstance(config, ClassifierConfig) else config.video
    if not isinstance(video, ViTConfig):
        raise ValueError("AVION: the video encoder is a TimeSformer, wanted a ViT")
    ours = video_prefix(config)
    patches = flat_kernel(video.grid) if fast_patches else kernel(video.grid, over_time=False)
    rules = [
        one("visual.class_embedding", f"{ours}embedding.class_token_D"),
        position_rule("visual.positional_embedding", f"{ours}embedding", form=CLASS_ROW),
        one("visual.temporal_embedding", f"{ours}embedding.temporal_UD"),
        one("visual.conv1.weight", f"{ours}embedding.projection.weight", patches),
        *rename({"visual.ln_pre": f"{ours}norm_pre", "visual.ln_post": f"{ours}norm"}),
        *(_flash_blocks if flash else clip_blocks)(video.stack.depth, theirs="visual.transformer", ours=f"{ours}stack"),
    ]
    if isinstance(config, ClassifierConfig):
        return KeyTable(title="AVION classifier", rules=(*rules, *head_rules(config.heads)))
    rules += [
        one("visual.image_projection", "video_projection_DE"),
        one("textual.text_projection", "text_projection_DE"),
        one("logit_scale", "logit_scale", NUMBER),
        *text_rules(config.text, theirs="textual."),
    ]
    return KeyTable(title="AVION", rules=tuple(rules))


def _flash_blocks(depth: int, *, theirs: str, ours: str) -> list[Rule]:
    return [
        rule
        for i in range(depth)
        for rule in rename(_FLASH_BLOCK, theirs=f"{theirs}.resblocks.{i}.", ours=f"{ours}.blocks.{i}.")
    ]
