"""The names of OpenAI's and open_clip's image CLIP, and what AVION's and LaViLa's share with them.

It knows names and configurations, not values. From the state dicts of openai/CLIP and mlfoundations/open_clip.
"""

from __future__ import annotations

from collections.abc import Mapping

from framefeed_models.classifier import ClassifierConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.text import TextConfig
from framefeed_models.timesformer import TimeSformerConfig
from framefeed_models.weights.forms import CLASS_ROW, NUMBER, kernel, one, rename, zeros
from framefeed_models.weights.key_table import Form, KeyTable, Rule

_BLOCK = {
    "ln_1": "norm_attention",
    "attn.out_proj": "attention.out",
    "ln_2": "norm_mlp",
    "mlp.c_fc": "mlp.0",
    "mlp.c_proj": "mlp.2",
}
# An image's block as the spatial half of a divided one: LaViLa starts from CLIP like this.
_BLOCK_AS_SPACE = _BLOCK | {"ln_1": "norm_space", "attn.out_proj": "space.out"}
_TIME_PARTS = [f"{part}.{kind}" for part in ("norm_time", "time.qkv", "time.out") for kind in ("weight", "bias")]
_PROJECTIONS = {"visual.proj": "video_projection_DE", "text_projection": "text_projection_DE"}
_JOINT = _PROJECTIONS | {"logit_scale": "logit_scale"}


def clip_table(config: DualEncoderConfig, *, projections: bool = True) -> KeyTable:
    """OpenAI's and open_clip's image CLIP, inflated to video: each frame as an image, time at zero.

    Into a TimeSformer CLIP's blocks become the spatial halves, and the temporal halves start as LaViLa's do. Without
    `projections` both projections and the scale are left and start fresh: AVION and LaViLa do so, as their joint space
    is another (256 wide). OpenAI trained with QuickGELU and an eps of 1e-5 in all norms: `activation="quick_gelu"`,
    `norm_eps=1e-5` in the configuration.
    """
    video, fresh = config.video, set()
    rules = [
        one("visual.class_embedding", "video.embedding.class_token_D"),
        position_rule("visual.positional_embedding", "video.embedding", form=CLASS_ROW),
        one("visual.conv1.weight", "video.embedding.projection.weight", kernel(video.grid, over_time=False)),
        Rule(theirs=(), ours=("video.embedding.temporal_UD",), form=zeros(video.grid.slots, video.stack.width)),
        *rename({"visual.ln_pre": "video.norm_pre", "visual.ln_post": "video.norm"}),
        *text_rules(config.text, theirs=""),
    ]
    if isinstance(video, TimeSformerConfig):
        for i in range(video.stack.depth):
            rules += clip_block(f"visual.transformer.resblocks.{i}", f"video.blocks.{i}", space=True)
            fresh |= {f"video.blocks.{i}.{part}" for part in _TIME_PARTS}
    else:
        rules += clip_blocks(video.stack.depth, theirs="visual.transformer", ours="video.stack")
    if projections:
        rules += [one(theirs, ours) for theirs, ours in _PROJECTIONS.items()]
        rules.append(one("logit_scale", "logit_scale", NUMBER))
    return KeyTable(
        title="OpenAI or open_clip CLIP",
        rules=tuple(rules),
        fresh=frozenset(fresh if projections else fresh | {*_JOINT.values()}),
        left=frozenset(() if projections else _JOINT),
    )


def clip_blocks(depth: int, *, theirs: str, ours: str) -> list[Rule]:
    """The rules of a whole stack of CLIP's blocks."""
    return [rule for i in range(depth) for rule in clip_block(f"{theirs}.resblocks.{i}", f"{ours}.blocks.{i}")]


def clip_block(theirs: str, ours: str, *, space: bool = False) -> list[Rule]:
    """The rules of one block; torch's MultiheadAttention keeps its fused projection under names of its own."""
    pairs, attention = (_BLOCK_AS_SPACE, "space") if space else (_BLOCK, "attention")
    fused = [one(f"{theirs}.attn.in_proj_{kind}", f"{ours}.{attention}.qkv.{kind}") for kind in ("weight", "bias")]
    return [*rename(pairs, theirs=f"{theirs}.", ours=f"{ours}."), *fused]


def text_rules(config: TextConfig, *, theirs: str) -> list[Rule]:
    """The rules of CLIP's text transformer, their names behind a prefix."""
    return [
        one(f"{theirs}positional_embedding", "text.position_LD"),
        one(f"{theirs}token_embedding.weight", "text.token_embedding.weight"),
        *rename({f"{theirs}ln_final": "text.norm"}),
        *clip_blocks(config.stack.depth, theirs=f"{theirs}transformer", ours="text.stack"),
    ]


def position_rule(theirs: str, ours: str, *, form: Form) -> Rule:
    """One table of theirs, the class token's row first, is two of ours."""
    return Rule(theirs=(theirs,), ours=(f"{ours}.position_class_D", f"{ours}.position_cells_GD"), form=form)


def head_rules(heads: Mapping[str, int]) -> list[Rule]:
    """AVION's and LaViLa's classifiers: one head is `fc_cls`, several are `fc_cls.0`, `fc_cls.1`… in this order."""
    theirs = ["fc_cls"] if len(heads) == 1 else [f"fc_cls.{i}" for i in range(len(heads))]
    return rename({old: f"heads.{new}" for old, new in zip(theirs, heads, strict=True)})


def video_prefix(config: DualEncoderConfig | ClassifierConfig) -> str:
    """Where the video encoder's weights are in a model of ours."""
    return "encoder." if isinstance(config, ClassifierConfig) else "video."
