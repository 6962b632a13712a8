"""Which score a kind of data set and a kind of model make together: what a clip's row is, and what rows are scored by.

N samples, K classes, E joint width, T texts, B clips. A sample without any clip is in no score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framefeed.errors import BadInput
from framefeed_models.classifier import Classifier
from framefeed_models.dual_encoder import DualEncoder
from framefeed_models.pixel_norm import PixelNorm
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.annotation import text_of
from trainer_client.datasets.egomcq import ANSWER, CHOICE, INTRA, QUESTION
from trainer_client.datasets.spec import Kind
from trainer_client.evaluate.class_scores import (
    ActionParts,
    Scores,
    Subsets,
    check_labels,
    epic_scores,
    softmax,
    top_k,
)
from trainer_client.evaluate.collect import Collected, RowsOf
from trainer_client.evaluate.mir_scores import mir_scores
from trainer_client.evaluate.retrieval_scores import choices, recalls
from trainer_client.text.tokens import Tokenizer
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.precision import Precision

_TEXTS = 256  # that are passed through the model at once

Features = npt.NDArray[np.float64]
Found = npt.NDArray[np.bool_]
_NOTHING: Features = np.zeros((0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """`rows_of` makes a row of each clip; `texts_of`, bool (N,) which samples have a clip, what else the model is
    asked; `score_of` the named numbers of all samples' mean rows and that.
    """

    metric: str
    rows_of: RowsOf
    score_of: Callable[[Collected, Features], dict[str, float]]
    texts_of: Callable[[Found], Features] = lambda _: _NOTHING

    def score(self, collected: Collected, *, rank: int = 0) -> dict[str, float]:
        """The named numbers, on rank 0; {} on others, which call it too: weights may be divided among ranks."""
        texts = self.texts_of(collected.found)
        return {} if rank else self.score_of(collected, texts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MirData:
    """The sentences of EPIC-Kitchens' retrieval, and float64 (N, sentences) how relevant they are to each sample."""

    sentences: Sequence[str]
    relevancy: Features


class Encoders:
    """A dual encoder's rows and texts, float32 of length 1."""

    def __init__(self, model: DualEncoder, tokenizer: Tokenizer, norm: PixelNorm, precision: Precision) -> None:
        """Raises BadInput for a tokenizer that is not of the model's vocabulary."""
        wanted, seen = model.config.text.vocabulary, tokenizer.layout.vocabulary
        if seen != wanted or tokenizer.layout.context > model.config.text.context:
            raise BadInput(
                f"tokenizer has {seen} tokens and texts of {tokenizer.layout.context}, the model takes {wanted} and "
                f"{model.config.text.context}; wanted the one that it was trained with"
            )
        self._model, self._tokenizer, self._norm, self._precision = model, tokenizer, norm, precision

    def clips(self, batch: DeviceBatch) -> Tensor:
        """Rows (B, E)."""
        with self._precision.autocast():
            return self._model.encode_video(batch.normalised(self._norm))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Features:
        """float64 (T, E)."""
        rows = []
        for begin in range(0, len(texts), _TEXTS):
            tokens = torch.from_numpy(self._tokenizer.encode(texts[begin : begin + _TEXTS]))
            with self._precision.autocast():
                rows.append(self._model.encode_text(tokens.to(self._precision.device)).double().cpu().numpy())
        return np.concatenate(rows)

    @property
    def scale(self) -> float:
        """Of the logits that are softmaxed for probabilities."""
        return float(self._model.logit_scale.float().exp())


def classifier_scorer(
    model: Classifier, dataset: AnnotatedDataset, *, norm: PixelNorm, precision: Precision, subsets: Subsets | None
) -> Scorer:
    """A row is a clip's logits of all heads, and their softmax: means over views are of either, top-k by both.

    EPIC-Kitchens' verbs and nouns are summed up from the actions' probabilities where the model has no head for them.
    Raises BadInput for heads that the data set has no labels for, or too few classes for.
    """
    heads = dict(model.config.heads)
    names = tuple(dataset.classes)
    wanted = "action" if "action" in names else "label"
    own = {wanted if name not in names and len(heads) == 1 else name: size for name, size in heads.items()}
    if not set(own) <= set(names):
        raise BadInput(
            f"the model's heads are {', '.join(heads)}, and {dataset.name} labels {', '.join(names) or 'none'}"
        )
    for name, size in own.items():
        check_labels(dataset.label_array(name), size, what=f"{dataset.name}, {name}")
        if name == "action" and size != len(dataset.classes["action"]):
            raise BadInput(
                f"the model's actions are {size}, those of the annotations {len(dataset.classes['action'])}; wanted "
                "the CSVs of training and validation in one folder, by which actions are numbered"
            )

    def rows_of(batch: DeviceBatch) -> Tensor:
        with precision.autocast():
            logits = model(batch.normalised(norm))
        parts = [logits[name].float() for name in heads]
        return torch.cat([*parts, *(part.softmax(dim=1) for part in parts)], dim=1)

    def score_of(collected: Collected, _: Features) -> dict[str, float]:
        found = collected.found
        sizes = [*own.values(), *own.values()]
        parts = np.split(collected.mean_NR[found], np.cumsum(sizes)[:-1], axis=1)
        logits, shares = parts[: len(own)], parts[len(own) :]
        labels = {name: dataset.label_array(name)[found] for name in names}
        by_name = dict(zip(own, shares, strict=True))
        if wanted == "label":
            by_logits = dict(zip(own, logits, strict=True))
            return {
                **_top_scores(by_name["label"], labels["label"]),
                **{f"{k}_of_mean_logits": v for k, v in _top_scores(by_logits["label"], labels["label"]).items()},
            }
        return _epic(by_name, labels, dataset, subsets, found)

    is_epic = wanted == "action"
    metric = "EPIC-Kitchens-100 recognition" if is_epic else "classification top-1 and top-5"
    return Scorer(metric=metric, rows_of=rows_of, score_of=score_of)


def zero_shot_scorer(
    encoders: Encoders, dataset: AnnotatedDataset, *, templates: Sequence[str], subsets: Subsets | None
) -> Scorer:
    """A class is the mean of its name's features in all templates, of length 1 each and as a whole (LaViLa); classes
    are ranked by their product with the mean of the clip's views. EPIC-Kitchens' actions are named by verb and noun.

    Raises BadInput for classes that have numbers alone, which say nothing of them.
    """
    is_epic = "action" in dataset.classes
    for kind in ("verb", "noun") if is_epic else ("label",):
        if all(name.isdecimal() for name in dataset.classes[kind]):
            wanted = f"EPIC_100_{kind}_classes.csv beside them" if is_epic else "--data.classes, a file of names"
            raise BadInput(f"{dataset.name} has numbers for the {kind} classes and no names to tell; wanted {wanted}")
    names = _action_names(dataset.classes) if is_epic else dataset.classes["label"]

    def texts_of(_: Found) -> Features:
        return class_features(encoders.texts, names, templates)

    def score_of(collected: Collected, classes_KE: Features) -> dict[str, float]:
        found = collected.found
        near_NK = _unit(collected.mean_NR[found]) @ classes_KE.T
        if not is_epic:
            return _top_scores(near_NK, dataset.label_array("label")[found])
        labels = {name: dataset.label_array(name)[found] for name in dataset.classes}
        return _epic({"action": softmax(encoders.scale * near_NK)}, labels, dataset, subsets, found)

    return Scorer(metric="zero-shot classification", rows_of=encoders.clips, score_of=score_of, texts_of=texts_of)


def retrieval_scorer(encoders: Encoders, dataset: AnnotatedDataset) -> Scorer:
    """Recall of the right text among all different ones, and of clips for each text."""

    def texts_of(found: Found) -> Features:
        return encoders.texts(_distinct(dataset, np.flatnonzero(found))[0])

    def score_of(collected: Collected, texts_TE: Features) -> dict[str, float]:
        at = np.flatnonzero(collected.found)
        return recalls(_unit(collected.mean_NR[at]) @ texts_TE.T, _distinct(dataset, at)[1])

    return Scorer(metric="zero-shot retrieval", rows_of=encoders.clips, score_of=score_of, texts_of=texts_of)


def mir_scorer(encoders: Encoders, data: MirData) -> Scorer:
    """EPIC-Kitchens-100's multi-instance retrieval of the split's sentences."""

    def score_of(collected: Collected, sentences_TE: Features) -> dict[str, float]:
        found = collected.found
        return mir_scores(_unit(collected.mean_NR[found]) @ sentences_TE.T, data.relevancy[found]).named()

    return Scorer(
        metric="EPIC-Kitchens-100 multi-instance retrieval",
        rows_of=encoders.clips,
        score_of=score_of,
        texts_of=lambda _: encoders.texts(data.sentences),
    )


def mcq_scorer(encoders: Encoders, dataset: AnnotatedDataset) -> Scorer:
    """EgoMCQ: the share of questions, among clips of one video and of several, whose nearest clip is the right one. A
    question of which a clip is missing is in neither.
    """

    question_N, choice_N = dataset.label_array(QUESTION), dataset.label_array(CHOICE)

    def whole(found: Found) -> npt.NDArray[np.int64]:
        lost = set(question_N[~found].tolist())
        at = np.array([n for n, question in enumerate(question_N.tolist()) if question not in lost], np.int64)
        if not len(at):
            raise BadInput("EgoMCQ: no question has all of its clips, wanted one that has")
        return at

    def texts_of(found: Found) -> Features:
        return encoders.texts(_distinct(dataset, whole(found))[0])

    def score_of(collected: Collected, texts_TE: Features) -> dict[str, float]:
        at = whole(collected.found)
        chosen = choices(
            _unit(collected.mean_NR[at]),
            texts_TE[_distinct(dataset, at)[1]],
            question_V=question_N[at].astype(np.int64),
            choice_V=choice_N[at].astype(np.int64),
        )
        answers = dict(zip(question_N.tolist(), dataset.label_array(ANSWER).tolist(), strict=True))
        is_intra = dict(zip(question_N.tolist(), dataset.label_array(INTRA).tolist(), strict=True))
        scores = {}
        for name, kind in (("intra_video", 1), ("inter_video", 0)):
            right = [chosen[question] == answers[question] for question in chosen if is_intra[question] == kind]
            if right:
                scores[name] = float(np.mean(right))
        return scores

    return Scorer(metric="EgoMCQ accuracy", rows_of=encoders.clips, score_of=score_of, texts_of=texts_of)


def masked_scorer(losses_of: RowsOf) -> Scorer:
    """The mean loss of masked reconstruction, over samples; `losses_of` gives that of each clip, (B, 1)."""

    def score_of(collected: Collected, _: Features) -> dict[str, float]:
        if not collected.found.any():
            raise BadInput("there is no clip to score, wanted at least one")
        return {"loss": float(collected.mean_NR[collected.found].mean())}

    return Scorer(metric="masked reconstruction", rows_of=losses_of, score_of=score_of)


def dual_scorer(kind: Kind, encoders: Encoders, dataset: AnnotatedDataset, templates: Sequence[str]) -> Scorer:
    """What a dual encoder is scored by on data of a kind that needs no more: labels by zero shot, texts by recall, and
    by both where there are both.
    """
    if kind == "egomcq":
        return mcq_scorer(encoders, dataset)
    if "label" not in dataset.classes and not dataset.has_text:
        raise BadInput(f"{dataset.name} has neither labels nor texts to score by")
    if "label" not in dataset.classes:
        return retrieval_scorer(encoders, dataset)
    zero_shot = zero_shot_scorer(encoders, dataset, templates=templates, subsets=None)
    if not dataset.has_text:
        return zero_shot
    return _both(zero_shot, retrieval_scorer(encoders, dataset), classes=len(dataset.classes["label"]))


def _both(zero_shot: Scorer, retrieval: Scorer, *, classes: int) -> Scorer:
    def texts_of(found: Found) -> Features:
        return np.concatenate([zero_shot.texts_of(found), retrieval.texts_of(found)])

    def score_of(collected: Collected, texts_TE: Features) -> dict[str, float]:
        by_label = zero_shot.score_of(collected, texts_TE[:classes])
        return by_label | retrieval.score_of(collected, texts_TE[classes:])

    metric = f"{zero_shot.metric} and retrieval"
    return Scorer(metric=metric, rows_of=zero_shot.rows_of, score_of=score_of, texts_of=texts_of)


def class_features(
    texts: Callable[[Sequence[str]], Features], names: Sequence[str], templates: Sequence[str]
) -> Features:
    """float64 (K, E) of length 1: the mean over templates, whose {} is the class's name."""
    every = texts([template.replace("{}", name) for name in names for template in templates])
    return _unit(every.reshape(len(names), len(templates), -1).mean(axis=1))


def _distinct(dataset: AnnotatedDataset, at: npt.NDArray[np.int64]) -> tuple[Sequence[str], npt.NDArray[np.int64]]:
    """The different texts of these samples, T of them, and which one each has, (V,)."""
    numbers: dict[str, int] = {}
    said = [text_of(dataset[int(index)].target) for index in at]
    text_of_V = np.array([numbers.setdefault(text, len(numbers)) for text in said], np.int64)
    return list(numbers), text_of_V


def _action_names(classes: Mapping[str, Sequence[str]]) -> list[str]:
    verbs, nouns = classes["verb"], classes["noun"]
    pairs = ([int(part) for part in action.split(":")] for action in classes["action"])
    return [f"{verbs[verb].replace('-', ' ')} {' '.join(reversed(nouns[noun].split(':')))}" for verb, noun in pairs]


def _epic(
    by_name: Mapping[str, Scores],
    labels: Mapping[str, npt.NDArray[np.int32]],
    dataset: AnnotatedDataset,
    subsets: Subsets | None,
    found: npt.NDArray[np.bool_],
) -> dict[str, float]:
    classes = dataset.classes
    parts = ActionParts.read(classes["action"], verbs=len(classes["verb"]), nouns=len(classes["noun"]))
    verbs, nouns = parts.marginal(by_name["action"])
    whole = {"verb": verbs, "noun": nouns, **by_name}
    own = None if subsets is None else Subsets(tail=subsets.tail, unseen_N=subsets.unseen_N[found])
    return epic_scores(whole, labels, own)


def _top_scores(scores_NK: Scores, labels_N: npt.NDArray[np.int32]) -> dict[str, float]:
    check_labels(labels_N, scores_NK.shape[1], what="classification")
    return {"top1": top_k(scores_NK, labels_N, 1), "top5": top_k(scores_NK, labels_N, 5)}


def _unit(rows: Features) -> Features:
    if not len(rows):
        raise BadInput("there is no clip to score, wanted at least one")
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float64)
