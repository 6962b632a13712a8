"""Which kind of checkpoint a file is, by its names and the configuration beside it. It knows no model of ours.

A kind's own code says most of what the tensors do not show: activation, eps, pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from torch import Tensor

from framefeed_models.block import Activation
from framefeed_models.pixel_norm import CLIP, IMAGENET, LAVILA, PixelNorm
from framefeed_models.weights.checkpoint_folder import checkpoint_in
from framefeed_models.weights.config_json import ModelConfig, config_from_json
from framefeed_models.weights.files import WeightsFileError, read_checkpoint
from framefeed_models.weights.saved_model import PIXELS_NAME
from framefeed_models.weights.traits import TowerTraits, Traits, encoder_of, tower_traits

Kind = Literal[
    "OpenAI CLIP", "open_clip", "AVION", "LaViLa", "VideoMAE", "transformers CLIP", "transformers VideoMAE", "framefeed"
]
# OpenAI's state dicts hold these numbers beside the weights; open_clip's early ones a mask, transformers' 0, 1, 2….
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")
# Head widths that the authors' code fixes; VideoMAE's by width.
_CLIP_HEAD_WIDTH = 64
_VIDEOMAE_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16}
_ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "quick_gelu": "quick_gelu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A checkpoint and its kind; `config` for ours, and what is known of the clips it was trained on.

    `image_px` and `frames` are of its training, None where nobody says.
    """

    path: Path
    kind: Kind
    weights: dict[str, Tensor]
    traits: Traits
    averaged: bool = False
    config: ModelConfig | None = None
    image_px: int | None = None
    frames: int | None = None


def recognise(path: Path, *, averaged: bool = False) -> Recognised:
    """Read a checkpoint and say what it is: a file, or a folder with model.safetensors and configurations.

    `averaged` takes the moving average of the weights. Raises WeightsFileError, one line, for a file that cannot be
    read or is of no kind known here.
    """
    file = read_checkpoint(path, averaged=averaged)
    folder = checkpoint_in(path) or (path if path.is_dir() else path.parent)
    weights = {name: tensor for name, tensor in file.weights.items() if name.rpartition(".")[2] not in _NO_WEIGHTS}
    kind = _kind(path, file.weights, _json(folder / "config.json"))
    if kind in ("OpenAI CLIP", "open_clip"):
        weights = {_without_text(name): tensor for name, tensor in weights.items()}
    config, traits = None, _TRAITS.get(kind)
    if kind == "framefeed":
        config, traits = _own(folder)
    elif kind == "open_clip":
        traits = _open_clip(path, _json(folder / "open_clip_config.json"))
    elif kind.startswith("transformers"):
        traits = _transformers(path, kind, folder)
    assert traits is not None, kind
    saved = _json(folder / "config.json") if kind.startswith("transformers") else {}
    return Recognised(
        path=path,
        kind=kind,
        weights=weights,
        traits=_with_heads(kind, traits, weights),
        averaged=file.averaged,
        config=config,
        image_px=_whole(_section(saved, "vision_config").get("image_size", saved.get("image_size")))
        or _whole(file.options.get("input_size")),
        frames=_whole(saved.get("num_frames")) or _whole(file.options.get("num_frames")),
    )


def _kind(path: Path, weights: Mapping[str, Tensor], config: Mapping[str, object]) -> Kind:
    if "framefeed_model" in config:
        return "framefeed"
    signs: dict[str, Kind] = {
        "visual.temporal_embed": "LaViLa",
        "visual.temporal_embedding": "AVION",
        "vision_model.embeddings.class_embedding": "transformers CLIP",
        "encoder.patch_embed.proj.weight": "VideoMAE",
        "patch_embed.proj.weight": "VideoMAE",
        "videomae.embeddings.patch_embeddings.projection.weight": "transformers VideoMAE",
        "embeddings.patch_embeddings.projection.weight": "transformers VideoMAE",
        "input_resolution": "OpenAI CLIP",
        "visual.class_embedding": "open_clip",
    }
    for name, kind in signs.items():
        if name in weights:
            return kind
    if "visual.layer1.0.conv1.weight" in weights:
        raise WeightsFileError(f"weights {path} are CLIP's ResNet, wanted one with a vision transformer")
    if any(name.endswith("embedding.projection.weight") for name in weights):
        wanted = "the folder that `framefeed export` writes"
        raise WeightsFileError(f"weights {path} are framefeed's without their config.json, wanted {wanted}")
    seen = ", ".join(sorted(weights)[:3])
    wanted = "CLIP, open_clip, AVION, LaViLa, VideoMAE, transformers' CLIP or VideoMAE, or framefeed's"
    raise WeightsFileError(f"weights {path} are of no known kind (they begin {seen}), wanted {wanted}")


_CLIP_TOWER = TowerTraits(activation="quick_gelu", norm_eps=1e-5)
_TRAITS: dict[Kind, Traits] = {
    "OpenAI CLIP": Traits(video=_CLIP_TOWER, text=_CLIP_TOWER, pixels=CLIP),
    # AVION's code asks for QuickGELU and swallows the request: its weights were trained with exact GELU.
    "AVION": Traits(
        video=TowerTraits(activation="gelu", norm_eps=1e-6),
        text=TowerTraits(activation="gelu", norm_eps=1e-5),
        pixels=LAVILA,
    ),
    "LaViLa": Traits(video=TowerTraits(activation="quick_gelu", norm_eps=1e-6), text=_CLIP_TOWER, pixels=LAVILA),
    "VideoMAE": Traits(video=TowerTraits(activation="gelu", norm_eps=1e-6), pixels=IMAGENET),
}


def _own(folder: Path) -> tuple[ModelConfig, Traits]:
    try:
        saved = _json(folder / "config.json")
        config, pixels = config_from_json(saved["config"]), saved_pixels(folder)
        video = tower_traits(encoder_of(config).stack)
    except (KeyError, ValueError) as error:
        raise WeightsFileError(f"model {folder / 'config.json'} is damaged: {error}") from None
    text = getattr(config, "text", None)
    return config, Traits(video=video, text=None if text is None else tower_traits(text.stack), pixels=pixels)


def _open_clip(path: Path, saved: Mapping[str, object]) -> Traits:
    """What open_clip_config.json says; without it the activation is anybody's guess, and stays unknown."""
    model, pixels = _section(saved, "model_cfg"), _section(saved, "preprocess_cfg")
    activation: Activation | None = ("quick_gelu" if model.get("quick_gelu") else "gelu") if model else None
    towers = []
    for name in ("vision_cfg", "text_cfg"):
        section = _section(model, name)
        eps = _section(section, "norm_kwargs").get("eps", 1e-5)
        if _section(section, "act_kwargs").get("approximate", "none") != "none":
            raise WeightsFileError(f"weights {path} were trained with tanh GELU, wanted exact GELU or QuickGELU")
        width, head = _whole(section.get("width")), _whole(section.get("head_width"))
        heads = _whole(section.get("heads")) or (width // head if width and head else None)
        towers.append(TowerTraits(activation=activation, norm_eps=float(cast("float", eps)), attention_heads=heads))
    return Traits(video=towers[0], text=towers[1], pixels=_pixels(pixels, "mean", "std") or CLIP)


def _transformers(path: Path, kind: Kind, folder: Path) -> Traits:
    """What config.json says: transformers writes what differs from its defaults, which are these."""
    saved = _json(folder / "config.json")
    if not saved:
        raise WeightsFileError(f"weights {path} are {kind} without config.json beside them, wanted the whole folder")
    preprocessor = _json(folder / "preprocessor_config.json")
    pixels = _pixels(preprocessor, "image_mean", "image_std")
    if kind == "transformers VideoMAE":
        return Traits(video=_saved_tower(path, saved, "gelu", 1e-12, 12), pixels=pixels or IMAGENET)
    vision, text = _section(saved, "vision_config"), _section(saved, "text_config")
    return Traits(
        video=_saved_tower(path, vision, "quick_gelu", 1e-5, 12),
        text=_saved_tower(path, text, "quick_gelu", 1e-5, 8),
        pixels=pixels or CLIP,
    )


def _saved_tower(path: Path, saved: Mapping[str, object], activation: str, eps: float, heads: int) -> TowerTraits:
    seen = str(saved.get("hidden_act", activation))
    if seen not in _ACTIVATIONS:
        wanted = " or ".join(_ACTIVATIONS)
        raise WeightsFileError(f"weights {path} were trained with {seen}, which no model here has, wanted {wanted}")
    return TowerTraits(
        activation=_ACTIVATIONS[seen],
        norm_eps=float(cast("float", saved.get("layer_norm_eps", eps))),
        attention_heads=_whole(saved.get("num_attention_heads", heads)),
    )


def _with_heads(kind: Kind, traits: Traits, weights: Mapping[str, Tensor]) -> Traits:
    """The number of heads that a kind's own code gives to the widths it has; other widths say nothing."""
    if kind == "VideoMAE":
        name = next(name for name in weights if name.endswith("patch_embed.proj.weight"))
        heads = _VIDEOMAE_HEADS.get(weights[name].shape[0])
        return _headed(traits, video=heads, text=None)
    if kind in ("OpenAI CLIP", "open_clip", "AVION", "LaViLa"):
        video = next((weights[n] for n in ("visual.class_embedding", "visual.cls_token") if n in weights), None)
        text = next((weights[n] for n in weights if n.endswith("token_embedding.weight")), None)
        return _headed(traits, video=_clip_heads(video), text=_clip_heads(text))
    return traits


def _clip_heads(tensor: Tensor | None) -> int | None:
    if tensor is None or tensor.shape[-1] % _CLIP_HEAD_WIDTH:
        return None
    return tensor.shape[-1] // _CLIP_HEAD_WIDTH


def _headed(traits: Traits, *, video: int | None, text: int | None) -> Traits:
    towers = [
        None
        if tower is None
        else TowerTraits(
            activation=tower.activation, norm_eps=tower.norm_eps, attention_heads=tower.attention_heads or heads
        )
        for tower, heads in ((traits.video, video), (traits.text, text))
    ]
    assert towers[0] is not None
    return Traits(video=towers[0], text=towers[1], pixels=traits.pixels)


def _without_text(name: str) -> str:
    """open_clip's later models keep the text tower under `text.`; its first, and OpenAI's, at the top."""
    return name.removeprefix("text.")


def saved_pixels(folder: Path) -> PixelNorm | None:
    """How clips of our model in a folder are normalised; None if it does not say. Raises WeightsFileError for a
    configuration that cannot be read, ValueError for numbers that are no normalisation."""
    return _pixels(_section(_json(folder / "config.json"), PIXELS_NAME), "mean", "std")


def _pixels(saved: Mapping[str, object], mean: str, std: str) -> PixelNorm | None:
    values = [saved.get(name) for name in (mean, std)]
    if not all(isinstance(value, list) and len(value) == 3 for value in values):
        return None
    means, stds = (tuple(float(number) for number in cast("list[float]", value)) for value in values)
    return PixelNorm(mean=cast("tuple[float, float, float]", means), std=cast("tuple[float, float, float]", stds))


def _json(path: Path) -> Mapping[str, object]:
    """What a configuration says, {} if there is none. Raises WeightsFileError for one that is no JSON."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise WeightsFileError(f"configuration {path} cannot be read: {error}") from None
    return saved if isinstance(saved, Mapping) else {}


def _section(saved: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = saved.get(name)
    return found if isinstance(found, Mapping) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
