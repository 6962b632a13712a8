"""Scores of clips and texts in one space where each clip has one right text, and of choices among clips. Pure NumPy.

V clips, T texts, Q questions, E joint width. Ties are ranked in the order of what is ranked, the earlier first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput

Rows = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.int64]


def recalls(similarity_VT: Rows, text_of_V: Numbers, *, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """R@k and the median rank (from 1) both ways: of texts for each clip, whose right one is `text_of_V`, and of clips
    for each text that any clip has, of whose right ones the best ranked counts.

    Equal texts are one column: so no clip is wrong for saying what another one says too.
    """
    if not similarity_VT.size:
        raise BadInput("retrieval: there is no clip or no text, wanted at least one of each")
    ranks_V = _ranks(similarity_VT, text_of_V)
    found = _named(ranks_V, "v2t", ks)
    best = np.full(similarity_VT.shape[1], similarity_VT.shape[0] + 1)
    for text in range(similarity_VT.shape[1]):
        column_V = similarity_VT[:, text]
        right = np.flatnonzero(text_of_V == text)
        if len(right):
            top = right[np.argmax(column_V[right])]
            best[text] = 1 + int((column_V > column_V[top]).sum() + (column_V[:top] == column_V[top]).sum())
    return found | _named(best[best <= similarity_VT.shape[0]], "t2v", ks)


def choices(video_VE: Rows, text_VE: Rows, *, question_V: Numbers, choice_V: Numbers) -> dict[int, int]:
    """Of each question the choice whose clip is nearest to its text, the first of several; by the question's number."""
    chosen: dict[int, int] = {}
    best: dict[int, float] = {}
    near_V = (video_VE.astype(np.float64) * text_VE).sum(axis=1)
    for at in np.lexsort((choice_V, question_V)).tolist():
        question = int(question_V[at])
        if question not in best or near_V[at] > best[question]:
            best[question], chosen[question] = float(near_V[at]), int(choice_V[at])
    return chosen


def _ranks(similarity_VT: Rows, text_of_V: Numbers) -> Numbers:
    own_V1 = np.take_along_axis(similarity_VT, text_of_V[:, None], axis=1)
    before = (similarity_VT > own_V1) | (
        (similarity_VT == own_V1) & (np.arange(similarity_VT.shape[1]) < text_of_V[:, None])
    )
    return np.asarray(before.sum(axis=1) + 1, np.int64)


def _named(ranks: Numbers, way: str, ks: Sequence[int]) -> dict[str, float]:
    return {f"R@{k}_{way}": float((ranks <= k).mean()) for k in ks} | {f"median_rank_{way}": float(np.median(ranks))}
