"""Scores of classifiers: top-k, the mean over classes, and EPIC-Kitchens-100's verbs and nouns out of actions. Pure
NumPy.

Ties are ranked in the order of the classes, the lower number first. N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from framefeed.show_value import show_value

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


def top_k(scores_NK: Scores, labels_N: Labels, k: int) -> float:
    """The share of samples whose label is among the k classes of the highest scores."""
    own_N1 = np.take_along_axis(scores_NK, labels_N[:, None], axis=1)
    before = (scores_NK > own_N1) | ((scores_NK == own_N1) & (np.arange(scores_NK.shape[1]) < labels_N[:, None]))
    return float((before.sum(axis=1) < k).mean())


def class_mean(scores_NK: Scores, labels_N: Labels) -> float:
    """The mean, over the classes that any sample has, of the share of their samples that are recognised."""
    right_N = scores_NK.argmax(axis=1) == labels_N
    counts_K = np.bincount(labels_N, minlength=scores_NK.shape[1])
    hits_K = np.bincount(labels_N, weights=right_N, minlength=scores_NK.shape[1])
    seen = counts_K > 0
    return float((hits_K[seen] / counts_K[seen]).mean())


def softmax(logits_NK: npt.NDArray[np.floating]) -> Scores:
    """exp(z_k) / Σ_j exp(z_j) of each row, float64."""
    shifted = logits_NK.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def check_labels(labels_N: Labels, classes: int, *, what: str) -> None:
    """Raise BadInput unless all are 0 to classes - 1, and there is one."""
    if not len(labels_N):
        raise BadInput(f"{what}: there is no sample to score, wanted at least one")
    if labels_N.min() < 0 or labels_N.max() >= classes:
        wrong = int(labels_N.max() if labels_N.max() >= classes else labels_N.min())
        raise BadInput(f"{what}: class {wrong} is unknown to the model, which has 0 to {classes - 1}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionParts:
    """Which verb and noun each action is of, int64 (actions,), and how many verbs and nouns there are."""

    verb_of: npt.NDArray[np.int64]
    noun_of: npt.NDArray[np.int64]
    verbs: int
    nouns: int

    @classmethod
    def read(cls, actions: Sequence[str], *, verbs: int, nouns: int) -> ActionParts:
        """Of actions "verb:noun". Raises BadInput for other names."""
        try:
            pairs = np.array([[int(part) for part in action.split(":")] for action in actions]).reshape(-1, 2)
        except ValueError:
            raise BadInput(f"actions are named as {show_value(actions[0])}, wanted VERB:NOUN in numbers") from None
        if pairs.min() < 0 or pairs[:, 0].max() >= verbs or pairs[:, 1].max() >= nouns:
            raise BadInput(f"actions have verbs and nouns beyond {verbs} and {nouns}")
        return cls(verb_of=pairs[:, 0], noun_of=pairs[:, 1], verbs=verbs, nouns=nouns)

    def marginal(self, actions_NA: Scores) -> tuple[Scores, Scores]:
        """P(verb) = Σ P(action) over the actions with that verb, and of nouns alike: (N, verbs), (N, nouns).

        A class that no action has is 0 (AVION's code lends it action 0's, which can only make another one wrong).
        """
        return _sums(actions_NA, self.verb_of, self.verbs), _sums(actions_NA, self.noun_of, self.nouns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsets:
    """EPIC-Kitchens' subsets: classes of the tail by "verb" and "noun", and which samples are of unseen people."""

    tail: Mapping[str, frozenset[int]]
    unseen_N: Mask


def epic_scores(
    by_name: Mapping[str, Scores], labels: Mapping[str, Labels], subsets: Subsets | None = None
) -> dict[str, float]:
    """Top-1 and top-5 of "verb", "noun" and "action" over all samples, and the mean over classes of their top-1; over
    those of unseen participants top-1; over tail classes the mean over classes, an action's if its verb or its noun is
    of the tail (Damen et al. 2022, §C.1).
    """
    found: dict[str, float] = {}
    for name, scores in by_name.items():
        check_labels(labels[name], scores.shape[1], what=f"EPIC-Kitchens {name}")
        found[f"{name}_top1"], found[f"{name}_top5"] = top_k(scores, labels[name], 1), top_k(scores, labels[name], 5)
        found[f"{name}_class_mean"] = class_mean(scores, labels[name])
    if subsets is None:
        return found
    tails = {name: np.isin(labels[name], sorted(subsets.tail[name])) for name in ("verb", "noun") if name in labels}
    tails["action"] = np.logical_or.reduce(list(tails.values()))
    for name, scores in by_name.items():
        if subsets.unseen_N.any():
            found[f"unseen_{name}_top1"] = top_k(scores[subsets.unseen_N], labels[name][subsets.unseen_N], 1)
        if tails[name].any():
            found[f"tail_{name}_class_mean"] = class_mean(scores[tails[name]], labels[name][tails[name]])
    return found


def _sums(actions_NA: Scores, class_of: npt.NDArray[np.int64], classes: int) -> Scores:
    is_of_AK = (class_of[:, None] == np.arange(classes)).astype(np.float64)
    return np.asarray(actions_NA @ is_of_AK, np.float64)
