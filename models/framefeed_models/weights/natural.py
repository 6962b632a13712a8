"""The model that a recognised checkpoint is of, in our configurations, as far as its tensors' shapes say it.

It knows names and shapes, no values and no files. Axes: D width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from torch import Tensor

from framefeed_models.block import StackConfig
from framefeed_models.classifier import ClassifierConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.encoder import EncoderConfig
from framefeed_models.text import TextConfig
from framefeed_models.timesformer import TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.config_json import ModelConfig
from framefeed_models.weights.recognise import Recognised
from framefeed_models.weights.traits import encoder_of

IMAGE_KINDS = ("OpenAI CLIP", "open_clip", "transformers CLIP")
_CLIP_MAKE = {"positions": "learned", "class_token": True, "patch_bias": False, "norm_pre": True}
_VIDEOMAE_MAKE = {"positions": "flat", "class_token": False, "patch_bias": True, "norm_pre": False}
_DIVIDED_MAKE = {"variant": "lavila", "patch_bias": False, "norm_pre": True}
_MLP = ("mlp.c_fc.weight", "mlp.fc1.weight", "intermediate.dense.weight")
_PATCHES = re.compile(r"(conv1|patch_embed\.proj|patch_embedding|patch_embeddings\.projection)\.weight$")
_CELLS = re.compile(r"^(visual\.pos(itional_embedding|_embed)|vision_model.*position_embedding\.weight)$")
_SLOTS = re.compile(r"^visual\.temporal_embed(ding)?$")
_CUBE = ("patch_px", "tubelet_frames", "channels")
_HEADS = re.compile(r"^(fc_cls|fc_cls\.\d+|head|classifier)\.weight$")


class NotForModelError(ValueError):
    """Weights that are not for a model, one line: what, where, the value seen, the value wanted."""


def natural_config(source: Recognised, target: ModelConfig) -> ModelConfig:
    """The configuration under which a key table takes this checkpoint whole, with our names.

    What no tensor says (pool, backend, drop path) is taken from the target's encoder, and for images the frames too.
    Raises NotForModelError if that encoder is of another make or size.
    """
    try:
        encoder = encoder_of(target)
    except ValueError as error:
        raise NotForModelError(f"{source.kind} weights {source.path} are not for this model: {error}") from None
    if source.config is not None:
        _require_same_make(source, encoder_of(source.config), encoder)
        return source.config
    weights = source.weights
    _require_structure(source, encoder)
    _require_sizes(source, encoder)
    video = replace(encoder, grid=_grid(source, encoder))
    heads = [weights[name].shape[0] for name in sorted(weights, key=_by_number) if _HEADS.match(name)]
    if heads:
        names = [f"head {i}" for i in range(len(heads))]
        if isinstance(target, ClassifierConfig) and list(target.heads.values()) == heads:
            names = list(target.heads)
        return ClassifierConfig(encoder=video, heads=dict(zip(names, heads, strict=True)))
    decoder = _decoder(source)
    if decoder is not None:
        assert isinstance(video, ViTConfig)
        return VideoMAEConfig(grid=video.grid, encoder=video.stack, decoder=decoder)
    if "VideoMAE" in source.kind:
        return video
    return DualEncoderConfig(video=video, text=_text(source), joint=_joint(weights))


def _require_structure(source: Recognised, encoder: EncoderConfig) -> None:
    """The encoder's make: TimeSformer or ViT, positions, class token, patch bias, first norm, layer scale."""
    divided = isinstance(encoder, TimeSformerConfig)
    if source.kind == "LaViLa" or (source.kind in ("OpenAI CLIP", "open_clip") and divided):
        make, wanted = "TimeSformer", _DIVIDED_MAKE
    else:
        make, wanted = "ViT", _VIDEOMAE_MAKE if "VideoMAE" in source.kind else _CLIP_MAKE
    seen = "TimeSformer" if divided else "ViT"
    if seen != make:
        refuse(source, f"the model's video encoder is a {seen}, wanted a {make}")
    for name, value in wanted.items():
        if getattr(encoder, name) != value:
            what = name.replace("_", " ")
            refuse(source, f"{what} of the model's video encoder is {getattr(encoder, name)!r}, wanted {value!r}")
    if encoder.stack.layer_scale is not None:
        refuse(source, f"layer scale of the model's video encoder is {encoder.stack.layer_scale}, wanted none")


def _require_sizes(source: Recognised, encoder: EncoderConfig) -> None:
    stack = _stack(source.weights, _encoder_blocks(source))
    grid, patches = encoder.grid, _tensor(source, _PATCHES, "a patch embedding")
    patch = math.isqrt(patches.shape[1] // grid.channels) if patches.ndim == 2 else patches.shape[-1]
    pairs = [("patch size", patch, grid.patch_px), *_stack_sizes(stack, encoder.stack)]
    if patches.ndim == 5:
        pairs.append(("frames of a cube", patches.shape[2], grid.tubelet_frames))
    elif source.kind not in IMAGE_KINDS:
        pairs.append(("frames of a cube", 1, grid.tubelet_frames))
    if patches.ndim > 2:
        pairs.append(("channels", patches.shape[1], grid.channels))
    require_equal(source, "video encoder", pairs)


def _stack_sizes(theirs: StackConfig, ours: StackConfig) -> list[tuple[str, int, int]]:
    hidden = [int(stack.width * stack.mlp_ratio) for stack in (theirs, ours)]
    return [
        ("width", theirs.width, ours.width),
        ("depth", theirs.depth, ours.depth),
        ("hidden width", hidden[0], hidden[1]),
    ]


def require_same_stack(source: Recognised, where: str, theirs: StackConfig, ours: StackConfig) -> None:
    """Raises NotForModelError for stacks of another width, depth or hidden width."""
    require_equal(source, where, _stack_sizes(theirs, ours))


def require_equal(source: Recognised, where: str, pairs: list[tuple[str, int, int]]) -> None:
    """Raises NotForModelError for the first (name, theirs, ours) that differ."""
    for name, theirs, ours in pairs:
        if theirs != ours:
            refuse(source, f"{name} of the {where} is {theirs} in them, wanted the model's {ours}")


def _require_same_make(source: Recognised, theirs: EncoderConfig, ours: EncoderConfig) -> None:
    """The same of our own weights, whose configuration says it all."""
    if type(theirs) is not type(ours):
        names = [type(config).__name__.removesuffix("Config") for config in (theirs, ours)]
        refuse(source, f"their video encoder is a {names[0]}, wanted the model's {names[1]}")
    for name in ("variant", "positions", "class_token", "patch_bias", "norm_pre"):
        seen, wanted = getattr(theirs, name, None), getattr(ours, name, None)
        if seen != wanted:
            refuse(
                source, f"{name.replace('_', ' ')} of their video encoder is {seen!r}, wanted the model's {wanted!r}"
            )
    pairs = _stack_sizes(theirs.stack, ours.stack)
    pairs += [(name, getattr(theirs.grid, name), getattr(ours.grid, name)) for name in _CUBE]
    if (theirs.stack.layer_scale is None) != (ours.stack.layer_scale is None):
        refuse(
            source, f"layer scale is {theirs.stack.layer_scale} in them, wanted the model's {ours.stack.layer_scale}"
        )
    require_equal(source, "video encoder", pairs)


def refuse(source: Recognised, why: str) -> NoReturn:
    """Raises NotForModelError."""
    raise NotForModelError(f"{source.kind} weights {source.path} are not for this model: {why}")


def _grid(source: Recognised, encoder: EncoderConfig) -> TubeletGrid:
    """The clips that the checkpoint's positions are of, in the model's cubes.

    Images get the model's frames. Fixed positions are in no checkpoint: what a configuration beside it says, or the
    model's own.
    """
    grid, side = encoder.grid, source.image_px
    cells = next((tensor for name, tensor in source.weights.items() if _CELLS.match(name)), None)
    if cells is not None:
        count = cells.shape[-2] - 1
        rows = math.isqrt(count)
        if rows**2 != count:
            refuse(source, f"their position table has {count} cells, wanted a square of them")
        side = rows * grid.patch_px
    slots = next((tensor.shape[-2] for name, tensor in source.weights.items() if _SLOTS.match(name)), None)
    frames = source.frames if slots is None else slots * grid.tubelet_frames
    if source.kind in IMAGE_KINDS:
        frames = None
    return replace(grid, frames=frames or grid.frames, height_px=side or grid.height_px, width_px=side or grid.width_px)


def _encoder_blocks(source: Recognised) -> str:
    prefixes = {
        "LaViLa": ("visual.blocks.",),
        "VideoMAE": ("encoder.blocks.", "blocks."),
        "transformers CLIP": ("vision_model.encoder.layers.",),
        "transformers VideoMAE": ("videomae.encoder.layer.", "encoder.layer."),
    }.get(source.kind, ("visual.transformer.resblocks.",))
    found = next((prefix for prefix in prefixes if any(name.startswith(prefix) for name in source.weights)), None)
    if found is None:
        refuse(source, f"they have no {prefixes[0]}*, wanted the blocks of a vision transformer")
    return found


def _decoder(source: Recognised) -> StackConfig | None:
    prefix = "decoder.blocks." if source.kind == "VideoMAE" else "decoder.decoder_layers."
    if "VideoMAE" not in source.kind or not any(name.startswith(prefix) for name in source.weights):
        return None
    return _stack(source.weights, prefix)


def _stack(weights: Mapping[str, Tensor], prefix: str, *, causal: bool = False) -> StackConfig:
    """Width, depth and hidden width of blocks; how many heads they have no tensor says."""
    depth = 1 + max(int(name[len(prefix) :].partition(".")[0]) for name in weights if name.startswith(prefix))
    name = next((f"{prefix}0.{mlp}" for mlp in _MLP if f"{prefix}0.{mlp}" in weights), None)
    if name is None:
        raise NotForModelError(f"weights lack {prefix}0.*{_MLP[0]}, wanted the first layer of its MLP")
    hidden, width = weights[name].shape
    return StackConfig(width=width, depth=depth, heads=1, mlp_ratio=hidden / width, causal=causal)


def _text(source: Recognised) -> TextConfig:
    weights = source.weights
    words = next((name for name in weights if name.endswith("token_embedding.weight")), None)
    if words is None:
        refuse(source, "they have no text encoder, wanted both towers or a classifier")
    if words.startswith("text_model."):
        prefix, position = "text_model.encoder.layers.", "text_model.embeddings.position_embedding.weight"
    else:
        start = words.removesuffix("token_embedding.weight")
        prefix, position = f"{start}transformer.resblocks.", f"{start}positional_embedding"
    return TextConfig(
        stack=_stack(weights, prefix, causal=True),
        vocabulary=weights[words].shape[0],
        context=weights[position].shape[0],
    )


def _joint(weights: Mapping[str, Tensor]) -> int:
    for name in ("text_projection", "textual.text_projection"):
        if name in weights:
            return int(weights[name].shape[-1])
    return int(weights["text_projection.weight"].shape[0])


def _tensor(source: Recognised, pattern: re.Pattern[str], what: str) -> Tensor:
    found = next((tensor for name, tensor in source.weights.items() if pattern.search(name)), None)
    if found is None:
        refuse(source, f"they lack {what}")
    return found


def _by_number(name: str) -> tuple[int, str]:
    number = re.search(r"\.(\d+)\.", name)
    return (int(number.group(1)) if number else -1, name)
