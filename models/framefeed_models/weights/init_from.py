"""Any known checkpoint into any model of ours, or one line that says why not.

It knows kinds of checkpoints and models, no training. A model takes from a checkpoint of another task its video encoder
and starts the rest fresh: CLIP's image tower in a classifier, VideoMAE's encoder in a dual encoder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor, nn

from framefeed_models.classifier import ClassifierConfig
from framefeed_models.cmae import CMAEConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.embedding import fit_positions
from framefeed_models.encoder import EncoderConfig
from framefeed_models.pixel_norm import PixelNorm
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.weights.config_json import ModelConfig
from framefeed_models.weights.key_table import fill_model, import_weights
from framefeed_models.weights.natural import (
    IMAGE_KINDS,
    NotForModelError,
    natural_config,
    refuse,
    require_equal,
    require_same_stack,
)
from framefeed_models.weights.recognise import Kind, Recognised, recognise
from framefeed_models.weights.tables import Source, choose_table
from framefeed_models.weights.traits import Trait, Traits, contradictions, encoder_of

Accepted = Literal[Trait, "positions", "heads", "projections"]
_ACCEPTED: tuple[str, ...] = get_args(Accepted)
_TABLES: dict[Kind, Source] = {
    "OpenAI CLIP": "clip",
    "open_clip": "clip",
    "AVION": "avion",
    "LaViLa": "lavila",
    "VideoMAE": "videomae",
    "transformers CLIP": "transformers",
    "transformers VideoMAE": "transformers",
}
_TARGET, _MAE = "branches.target_encoder.", "branches.mae."
_JOINT = ("video_projection_DE", "text_projection_DE", "logit_scale")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitReport:
    """What `init_from` has done: the kind of checkpoint, and by name what the model has, and has not, from it.

    `fresh` are weights of the model that keep their start, `left` weights of the checkpoint, under our names, that the
    model has no use for. `traits` are what the weights were trained with, pixels included; `notes` what was done to
    them on the way.
    """

    kind: Kind
    path: Path
    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]
    traits: Traits
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} weights from {self.kind} {self.path}"]
        parts += [
            f"{title} {_groups(names)}" for title, names in (("fresh:", self.fresh), ("left:", self.left)) if names
        ]
        return "; ".join((*parts, *self.notes))


@dataclass(frozen=True, slots=True)
class _Taking:
    """Weights on their way into a model: from what, for which configuration, what is accepted, what was done."""

    source: Recognised
    natural: ModelConfig
    target: ModelConfig
    accept: Collection[Accepted]
    notes: list[str]

    def require(self, name: Accepted, line: str) -> None:
        """Note a contradiction that was named; raises NotForModelError for one that was not."""
        if name not in self.accept:
            refuse(self.source, f"{line}; wanted the same, or {name!r} among what is accepted")
        self.notes.append(f"accepted: {line}")


def init_from(
    path: Path,
    model: nn.Module,
    *,
    pixels: PixelNorm | None = None,
    accept: Collection[Accepted] = (),
    averaged: bool = False,
) -> InitReport:
    """Fill a model in place, before anything wraps or divides it, from a checkpoint whose kind is told by its names.

    `pixels` is how the clips will be normalised; None: the caller takes the report's. Contradictions between the model
    and what the weights were trained with are refused unless named in `accept`: activation, norm_eps, attention_heads,
    pixels; positions (fixed ones, computed anew for another grid), heads (of other classes: fresh), projections (of
    another joint width: fresh; for image CLIPs no contradiction, AVION and LaViLa start so). Learned positions of other
    clips are interpolated. `averaged` takes the moving average of the weights. Blocks for as long as the file takes.

    Raises WeightsFileError for a file that is none or of no known kind, NotForModelError for weights that are not for
    this model, WeightsMismatchError for names or shapes that are not their kind's. Each is one line, and leaves the
    model as it was.
    """
    if unknown := sorted({*accept} - {*_ACCEPTED}):
        raise ValueError(f"init: accept has {', '.join(unknown)}, wanted some of {', '.join(_ACCEPTED)}")
    target = getattr(model, "config", None)
    if target is None:
        raise NotForModelError(f"init: {type(model).__name__} has no configuration, wanted a model of this package")
    source = recognise(path, averaged=averaged)
    natural = natural_config(source, target)
    taking = _Taking(source, natural, target, accept, ["the moving average"] if source.averaged else [])
    _require_traits(taking, pixels)
    ours, untouched = _our_weights(source, natural)
    names = _names(taking, ours)
    weights = _fitted(taking, {new: ours[old] for new, old in names.items()})
    prefix, own = encoder_prefix(target), model.state_dict().keys()
    start = {name for old in untouched for name in _new_names(old, natural, target)}
    # The encoder has to be there whole, or nearly all of a checkpoint could be missing without a word.
    fresh = {name for name in own - weights.keys() if name in start or not name.startswith(prefix)}
    fill_model(model, weights, fresh=fresh)
    return InitReport(
        kind=source.kind,
        path=path,
        taken=tuple(sorted(weights)),
        fresh=tuple(sorted(fresh)),
        left=tuple(sorted(ours.keys() - names.values())),
        traits=source.traits,
        notes=tuple(taking.notes),
    )


def encoder_prefix(config: ModelConfig) -> str:
    """Where a model of this configuration has its video encoder."""
    if isinstance(config, CMAEConfig):
        return f"{_MAE}encoder."
    if isinstance(config, DualEncoderConfig):
        return "video."
    return "encoder." if isinstance(config, ClassifierConfig | VideoMAEConfig) else ""


def _require_traits(taking: _Taking, pixels: PixelNorm | None) -> None:
    traits = taking.source.traits
    if not isinstance(taking.natural, DualEncoderConfig):
        traits = replace(traits, text=None)
    for contradiction in contradictions(taking.target, traits, pixels=pixels):
        taking.require(contradiction.trait, contradiction.line)


def _our_weights(source: Recognised, natural: ModelConfig) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The checkpoint under the names of the model it is of, and which of that model's it has not."""
    if source.kind == "framefeed":
        return source.weights, frozenset()
    table = choose_table(natural, source.weights, source=_TABLES[source.kind])
    return import_weights(source.weights, table), table.fresh


def _names(taking: _Taking, ours: Mapping[str, Tensor]) -> dict[str, str]:
    """New name in the model → name in the checkpoint, of all that is taken."""
    natural, target = taking.natural, taking.target
    dropped: set[str] = set()
    if isinstance(natural, DualEncoderConfig) and isinstance(target, DualEncoderConfig):
        _require_text(taking, natural, target)
        if natural.joint != target.joint:
            line = f"the joint space is {natural.joint} wide in the weights, {target.joint} in the model"
            if taking.source.kind in IMAGE_KINDS:
                taking.notes.append(line)
            else:
                taking.require("projections", line)
            dropped |= {*_JOINT}
    if isinstance(natural, ClassifierConfig) and isinstance(target, ClassifierConfig):
        theirs, wanted = dict(natural.heads), dict(target.heads)
        if theirs != wanted:
            taking.require("heads", f"heads have {theirs} classes in the weights, {wanted} in the model")
            dropped |= {name for name in ours if name.startswith("heads.")}
    decoders = [
        config.mae.decoder if isinstance(config, CMAEConfig) else getattr(config, "decoder", None)
        for config in (natural, target)
    ]
    if decoders[0] is not None and decoders[1] is not None:
        require_same_stack(taking.source, "decoder", decoders[0], decoders[1])
    return {new: old for old in ours if old not in dropped for new in _new_names(old, natural, target)}


def _require_text(taking: _Taking, natural: DualEncoderConfig, target: DualEncoderConfig) -> None:
    theirs, ours = natural.text, target.text
    require_same_stack(taking.source, "text encoder", theirs.stack, ours.stack)
    require_equal(taking.source, "text encoder", [("vocabulary", theirs.vocabulary, ours.vocabulary)])
    if theirs.context < ours.context:
        require_equal(taking.source, "text encoder", [("context", theirs.context, ours.context)])


def _new_names(old: str, natural: ModelConfig, target: ModelConfig) -> list[str]:
    """Where a weight of one model belongs in another: in the same place, in the video encoder, or nowhere."""
    theirs, ours = encoder_prefix(natural), encoder_prefix(target)
    if type(natural) is type(target):
        return [old]
    if isinstance(natural, CMAEConfig) and isinstance(target, VideoMAEConfig):
        return [old.removeprefix(_MAE)] if old.startswith(_MAE) else []
    if isinstance(natural, VideoMAEConfig) and isinstance(target, CMAEConfig):
        new = f"{_MAE}{old}"
    elif old.startswith(theirs):
        new = ours + old.removeprefix(theirs)
    else:
        return []
    part = new.removeprefix(ours)
    # CMAE's target begins as its online encoder, without the final norm.
    follows = isinstance(target, CMAEConfig) and new.startswith(ours) and not part.startswith("norm.")
    return [new, f"{_TARGET}{part}"] if follows else [new]


def _fitted(taking: _Taking, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with position tables of the model's shape, compared by slots, rows and columns."""
    theirs, ours = encoder_of(taking.natural), encoder_of(taking.target)
    seen, wanted = _shape(theirs.grid), _shape(ours.grid)
    if _is_learned(theirs):
        if seen != wanted:
            taking.notes.append(f"positions of {_cubes(seen)} cubes interpolated to {_cubes(wanted)}")
        weights = fit_positions(weights, source=theirs.grid, target=ours.grid)
    elif seen != wanted:
        line = f"fixed positions are of {_cubes(seen)} cubes in the weights' training, of {_cubes(wanted)} in the model"
        taking.require("positions", line)
    elif taking.source.config is None and None in (taking.source.image_px, taking.source.frames):
        taking.notes.append("positions are fixed, and the weights do not say for which clips they were")
    context = taking.target.text.context if isinstance(taking.target, DualEncoderConfig) else None
    table_LD = weights.get("text.position_LD")
    if context is not None and table_LD is not None and len(table_LD) > context:
        # Exact: attention is causal, and a text of the model never reaches what is cut off.
        weights["text.position_LD"] = table_LD[:context]
        taking.notes.append(f"text positions cut from {len(table_LD)} to {context}")
    return weights


def _is_learned(encoder: EncoderConfig) -> bool:
    return getattr(encoder, "positions", "learned") == "learned"


def _shape(grid: TubeletGrid) -> tuple[int, int, int]:
    return (grid.slots, grid.rows, grid.columns)


def _cubes(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def _groups(names: tuple[str, ...]) -> str:
    """The modules that the names are of, each once."""
    return ", ".join(sorted({name.partition(".")[0] for name in names}))
