"""Chooses what a model is scored by on a data set; composes scorers and knows no metric's detail and no clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from framefeed_models.classifier import Classifier
from framefeed_models.dual_encoder import DualEncoder
from framefeed_models.pixel_norm import PixelNorm
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.epic_data import epic_subsets, mir_data
from trainer_client.evaluate.scorers import (
    Encoders,
    Scorer,
    classifier_scorer,
    dual_scorer,
    mir_scorer,
    zero_shot_scorer,
)
from trainer_client.text.tokens import Tokenizer
from trainer_client.training.precision import Precision

_EGO_KINDS = ("ek100_mir", "ek100_cls", "ego4d", "egomcq")
_EGO_TEMPLATES, _TEMPLATES = ("#C C {}", "#C {}"), ("{}", "a video of {}")  # of LaViLa; ours


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """A model, how its pixels are normalised, what it computes in, and for a dual encoder its texts' tokenizer."""

    model: nn.Module
    norm: PixelNorm
    precision: Precision
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a user says of scoring: the annotations, sentences in which {} is a class's name (() are LaViLa's for
    egocentric videos, else the name alone and a video of it), a pickle of relevancies (None: reckoned from the CSVs).
    """

    data: DataSpec
    templates: tuple[str, ...] = ()
    relevancy: Path | None = None

    def __post_init__(self) -> None:
        for template in self.templates:
            if "{}" not in template:
                raise BadInput(f"template {show_value(template)} has no {{}}, wanted it where the class's name goes")


def choose_scorer(subject: Subject, dataset: AnnotatedDataset, asked: Asked) -> Scorer:
    """The scores that a kind of data and a kind of model make together.

    Raises BadInput for a model that there is no score of, and for one and data that do not fit each other.
    """
    kind, model = asked.data.kind, subject.model
    subsets = epic_subsets(asked.data, dataset) if kind == "ek100_cls" else None
    if isinstance(model, Classifier):
        norm, precision = subject.norm, subject.precision
        return classifier_scorer(model, dataset, norm=norm, precision=precision, subsets=subsets)
    if not isinstance(model, DualEncoder):
        raise BadInput(f"the model is a {type(model).__name__}, wanted a classifier or a dual encoder to score")
    assert subject.tokenizer is not None, "a dual encoder comes with its tokenizer"
    encoders = Encoders(model, subject.tokenizer, subject.norm, subject.precision)
    templates = asked.templates or (_EGO_TEMPLATES if kind in _EGO_KINDS else _TEMPLATES)
    if kind == "ek100_mir":
        return mir_scorer(encoders, mir_data(asked.data, dataset, asked.relevancy))
    if kind == "ek100_cls":
        return zero_shot_scorer(encoders, dataset, templates=templates, subsets=subsets)
    return dual_scorer(kind, encoders, dataset, templates)
