"""EPIC-Kitchens-100's multi-instance retrieval: mAP and nDCG of similarities, given relevancies. Pure NumPy.

Definitions (Damen et al. 2022, "Rescaling Egocentric Vision", §C.5, and JPoSE's code, which all published figures are
by): of one query, R_r the relevancy of what is ranked r-th and k the number of items with R > 0,

    nDCG = Σ_{r≤k} R_r / log2(r + 1)  /  the same of the ideal order
    AP   = Σ_{r: R_r = 1} (Σ_{q≤r} R_q) / r  /  #{R = 1}

The numerator of AP adds up graded relevancies, not hits: it is no binary average precision. A query without any R = 1
has an AP of 0. Ties of similarity are ranked in the order of the columns, the earlier first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput

_BLOCK_VALUES = 1 << 21

Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class MirScores:
    """Shares of 1, of clips as queries for sentences (v2t) and the other way (t2v)."""

    map_v2t: float
    map_t2v: float
    ndcg_v2t: float
    ndcg_t2v: float

    def named(self) -> dict[str, float]:
        """By the names they are published under, with the means of both ways."""
        return {
            "mAP": (self.map_v2t + self.map_t2v) / 2,
            "nDCG": (self.ndcg_v2t + self.ndcg_t2v) / 2,
            "mAP_v2t": self.map_v2t,
            "mAP_t2v": self.map_t2v,
            "nDCG_v2t": self.ndcg_v2t,
            "nDCG_t2v": self.ndcg_t2v,
        }


def mir_scores(similarity: Matrix, relevancy: Matrix) -> MirScores:
    """Scores of similarities (clips, sentences) and float64 relevancies of the same shape, 0 to 1.

    Blocks for some seconds for EPIC-Kitchens' 9,668 x 3,842. Raises BadInput for shapes that differ, no clip, or
    similarities that are no numbers.
    """
    if similarity.shape != relevancy.shape or similarity.ndim != 2 or not similarity.size:
        raise BadInput(
            f"retrieval: similarities are {similarity.shape}, relevancies {relevancy.shape}; wanted the same"
        )
    if not np.isfinite(similarity).all():
        raise BadInput("retrieval: a similarity is no finite number, wanted what a model that has learned says")
    map_v2t, ndcg_v2t = _one_way(similarity, relevancy)
    map_t2v, ndcg_t2v = _one_way(similarity.T, relevancy.T)
    return MirScores(map_v2t=map_v2t, map_t2v=map_t2v, ndcg_v2t=ndcg_v2t, ndcg_t2v=ndcg_t2v)


def _one_way(similarity: Matrix, relevancy: Matrix) -> tuple[float, float]:
    """mAP and nDCG over the rows, the queries."""
    queries, items = similarity.shape
    rows = max(_BLOCK_VALUES // items, 1)
    precision, gain = np.zeros(queries), np.zeros(queries)
    for begin in range(0, queries, rows):
        block = slice(begin, begin + rows)
        precision[block], gain[block] = _block(similarity[block], np.asarray(relevancy[block], np.float64))
    if np.isnan(gain).all():
        raise BadInput("retrieval: no query has anything relevant, wanted the relevancies of this split")
    return float(precision.mean()), float(np.nanmean(gain))


def _block(similarity: Matrix, relevancy: npt.NDArray[np.float64]) -> tuple[Matrix, Matrix]:
    """AP and nDCG of each row; nDCG is NaN where nothing is relevant."""
    order = np.argsort(-similarity, axis=1, kind="stable")
    ranked = np.take_along_axis(relevancy, order, axis=1)
    ranks = np.arange(1, ranked.shape[1] + 1)
    right = ranked == 1.0
    precision = np.where(right, np.cumsum(ranked, axis=1) / ranks, 0.0).sum(axis=1) / np.maximum(right.sum(axis=1), 1)
    discount = 1.0 / np.log2(ranks + 1)
    relevant = (relevancy > 0).sum(axis=1)
    found = (np.where(ranks <= relevant[:, None], ranked, 0.0) * discount).sum(axis=1)
    ideal = (-np.sort(-relevancy, axis=1) * discount).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return precision, np.where(ideal > 0, found / ideal, np.nan)
