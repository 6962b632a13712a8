"""What a recipe is: WHAT decides which weights come out, and HOW the run computes, is fed and kept.

What decides weights may not change when a run resumes; how it runs may, and is recorded. It knows no task's code.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import tyro

from framefeed.errors import BadInput
from framefeed_models.weights.init_from import Accepted
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.eval_options import EvalOptions
from trainer_client.training.augment.rule import AugmentOptions
from trainer_client.training.best_score import Metric
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.feed_options import FeedOptions
from trainer_client.training.learning import LearningOptions
from trainer_client.training.recipes.clip_spec import ClipSpec
from trainer_client.training.recipes.mixed_in import MixedIn
from trainer_client.training.recipes.model_spec import Kernels, ModelSpec
from trainer_client.training.recipes.overrides import fields_of, short_names
from trainer_client.training.recipes.task_spec import TaskSpec
from trainer_client.training.session import SessionOptions

_bare = tyro.conf.arg(name="")  # --lr, not --what.learning.lr


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Every video of the root, cut into windows, without annotations."""

    window_s: Annotated[float, tyro.conf.arg(prefix_name=False)] = 4.0
    """Videos are cut into windows of so many seconds, the samples; a clip starts at a random frame of one."""

    def __post_init__(self) -> None:
        if not 0 < self.window_s < math.inf:
            raise BadInput(f"--window-s is {self.window_s:g}, wanted more than 0 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """Where the first weights come from."""

    init_from: Path | None = None
    """A checkpoint of OpenAI CLIP, open_clip, AVION, LaViLa, VideoMAE, transformers or an own run. Default: fresh."""
    accept: tuple[Accepted, ...] = ()
    """What may be otherwise in the checkpoint than in the model: activation, norm_eps, attention_heads, pixels,
    positions, heads, projections; all else is refused."""
    averaged: bool = False
    """Take the moving average of the checkpoint's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a run is, in which batches, from which seed."""

    batch_clips: int = 64
    """Clips of one step, of all processes together."""
    steps: int | None = None
    """Optimizer steps of the whole run; the learning rate's curve spans them. Default: those of --epochs."""
    epochs: float | None = None
    """How often every sample is used, instead of --steps."""
    seed: int = 0
    """All that is random follows from it: first weights, order, crops, flips, masks."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch_clips < 1 << 40:
            raise BadInput(f"--batch-clips is {self.batch_clips}, wanted at least 1 and below 2**40")
        if not 0 <= self.seed < 1 << 64:
            raise BadInput(f"--seed is {self.seed}, wanted 0 to 2**64 - 1")
        if self.steps is None and self.epochs is None:
            raise BadInput("--steps and --epochs are both None, wanted one of them")
        if self.steps is not None and not 1 <= self.steps < 1 << 40:
            raise BadInput(f"--steps is {self.steps}, wanted at least 1 and below 2**40")
        if self.epochs is not None and not 0 < self.epochs < 1e9:
            raise BadInput(f"--epochs is {self.epochs:g}, wanted more than 0 and below 1e9")

    def steps_over(self, *samples: int) -> int:
        """The steps of the run over so many samples, of each bucket if there are several; of an epoch the last, partial
        batch counts as one. Raises BadInput for no samples.
        """
        if min(samples) < 1:
            raise BadInput("the data set has no sample, wanted at least one")
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(round(self.epochs * sum(-(-count // self.batch_clips) for count in samples)), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class What:
    """What decides which weights come out."""

    model: Annotated[ModelSpec, _bare]
    task: Annotated[TaskSpec, _bare]
    data: DataSpec | Windows
    mix: tyro.conf.Fixed[tuple[MixedIn, ...]] = ()
    """More data sets, mixed in, as JSON: mix=[{"data": {"kind": …, "path": …}, "weight": …, "clips": {…}}, …]."""
    clips: Annotated[ClipSpec, _bare]
    learning: Annotated[LearningOptions, _bare]
    length: Annotated[Length, _bare]
    augment: Annotated[AugmentOptions, _bare] = field(default_factory=AugmentOptions)
    init: Annotated[Init, _bare] = field(default_factory=Init)

    @property
    def rules(self) -> tuple[ClipSpec, ...]:
        """Which clips are made of each data set's samples: of the recipe's own, then of those mixed in."""
        return (self.clips, *(part.clips or self.clips for part in self.mix))


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How the run is fed, computed and kept."""

    root: Annotated[Path, tyro.conf.Positional, _bare]
    """Folder that the servers serve: its manifest says which videos there are."""
    feed: Annotated[FeedOptions, _bare] = field(default_factory=FeedOptions)
    compute: Annotated[ComputeOptions, _bare] = field(default_factory=ComputeOptions)
    kernels: Annotated[Kernels, _bare] = field(default_factory=Kernels)
    session: Annotated[SessionOptions, _bare]
    evaluation: Annotated[EvalOptions, _bare] = field(default_factory=EvalOptions)

    def __post_init__(self) -> None:
        best = self.session.keep_best
        if best is not None and Metric.read(best).is_of_held_out and not self.evaluation.wanted:
            raise BadInput(f"--keep-best is {best} and nothing is scored; wanted --eval-epochs or --eval-every")


@tyro.conf.configure(tyro.conf.AvoidSubcommands)
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A run, whole. `name` is that of the function in the catalogue that made it, before changes."""

    FIRST_OPTIONS: ClassVar[tuple[str, ...]] = (
        "--servers",
        "--preset",
        "--window-s",
        "--data.kind",
        "--data.path",
        "--frames",
        "--batch-clips",
        "--steps",
        "--epochs",
        "--lr",
        "--init-from",
        "--nproc",
        "--resume",
    )

    name: tyro.conf.Fixed[str]
    what: Annotated[What, _bare]
    how: Annotated[How, _bare]


# Of WHAT, where annotations lie: what they say is known by their fingerprint, wherever that is.
_PLACES = frozenset({"path", "extra", "cache"})
_MIX = "mix"


def decides(recipe: Recipe) -> dict[str, object]:
    """The fields of WHAT by their short names, in what JSON can say: a checkpoint of others is refused."""
    said = {name: value for name, value in _short(recipe.what).items() if name not in _PLACES}
    return said | {_MIX: _placeless(said[_MIX])}


def runs(recipe: Recipe) -> dict[str, object]:
    """The fields of HOW likewise, and places: what may be otherwise when a run goes on."""
    places = {name: value for name, value in _short(recipe.what).items() if name in _PLACES}
    return {**places, **_short(recipe.how)}


def _short(part: object) -> dict[str, object]:
    values = fields_of(part)
    names = short_names(values)
    said = {names[path]: value for path, value in values.items()}
    body: dict[str, object] = json.loads(json.dumps(said, default=_in_json))
    return body


def _in_json(value: object) -> object:
    return dataclasses.asdict(cast(Any, value)) if dataclasses.is_dataclass(value) else str(value)


def _placeless(said: object) -> object:
    """The same without the places in it."""
    if isinstance(said, list):
        return [_placeless(one) for one in said]
    if isinstance(said, dict):
        return {name: _placeless(one) for name, one in said.items() if name not in _PLACES}
    return said
