"""How relevant sentences are to clips, in EPIC-Kitchens-100's multi-instance retrieval. It knows no videos.

R_ij = ½ [verb_i = verb_j] + ½ |N_i ∩ N_j| / |N_i ∪ N_j|, N the sets of noun classes (Damen et al. 2022, "Rescaling
Egocentric Vision", §C.5; a sentence's are those of the clip with its narration id). 67,217 x 15,989 of training would
be 8.6 GB: rows are reckoned when they are asked for, from what the sets of nouns have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from framefeed.option_types import shown
from framefeed.show_value import show_value
from trainer_client.datasets.epic_kitchens import NOUNS, EpicClip, read_clips, read_sentences
from trainer_client.datasets.plain_pickle import load_plain

POSITIVE = 0.1  # a sentence of training is right for a clip if it is more relevant than this (AVION)
_KEPT_ROWS = 4096

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Side:
    """Clips or sentences: int64 (N,) verbs, and the numbers of their sets of nouns; bool (sets, 300) these sets."""

    verbs: npt.NDArray[np.int64]
    set_of: npt.NDArray[np.int64]
    sets: npt.NDArray[np.float32]


class Relevancy:
    """float64 rows (sentences,) of clips."""

    def __init__(self, clips: Sequence[EpicClip], sentences: Sequence[EpicClip]) -> None:
        """Each sentence is given as the clip that it was said of."""
        self._clips, self._sentences = _side(clips), _side(sentences)
        common = self._clips.sets @ self._sentences.sets.T
        either = self._clips.sets.sum(axis=1)[:, None] + self._sentences.sets.sum(axis=1)[None] - common
        self._iou = common.astype(np.float64) / either
        self._row_of = lru_cache(maxsize=_KEPT_ROWS)(self._reckoned)

    @property
    def shape(self) -> tuple[int, int]:
        """Clips and sentences."""
        return len(self._clips.verbs), len(self._sentences.verbs)

    def row(self, clip: int) -> Matrix:
        """Of one clip to every sentence, (sentences,), read-only."""
        row: Matrix = self._row_of(int(self._clips.verbs[clip]), int(self._clips.set_of[clip]))
        return row

    def rows(self, clips: npt.NDArray[np.int64]) -> Matrix:
        """Of these clips, (clips, sentences)."""
        found: Matrix = 0.5 * self._iou[self._clips.set_of[clips]][:, self._sentences.set_of]
        found += 0.5 * (self._clips.verbs[clips][:, None] == self._sentences.verbs)
        return found

    def _reckoned(self, verb: int, nouns: int) -> Matrix:
        row: Matrix = 0.5 * self._iou[nouns, self._sentences.set_of] + 0.5 * (self._sentences.verbs == verb)
        row.flags.writeable = False
        return row


def relevancy_of(clips_path: Path, sentences_path: Path) -> Relevancy:
    """From the CSVs of clips and sentences, columns in the order of the sentences'.

    Raises BadInput for a sentence whose narration id no clip has: then the files are of different splits.
    """
    clips = read_clips(clips_path)
    by_id = {clip.narration_id: clip for clip in clips}
    if len(by_id) < len(clips):
        twice = next(clip for clip in clips if by_id[clip.narration_id] is not clip)
        raise BadInput(
            f"{clips_path}, line {twice.line}: narration_id {show_value(twice.narration_id)} comes again in line "
            f"{by_id[twice.narration_id].line}; wanted each once, as sentences name their clips by it"
        )
    sentences = read_sentences(sentences_path)
    if not clips or not sentences:
        raise BadInput(f"{sentences_path if clips else clips_path} has no row: an empty split")
    strange = [sentence.narration_id for sentence in sentences if sentence.narration_id not in by_id]
    if strange:
        raise BadInput(
            f"{sentences_path} has {strange[0]} and {len(strange) - 1} other sentences of clips that {clips_path} has "
            "not; wanted the sentences of this split"
        )
    return Relevancy(clips, [by_id[sentence.narration_id] for sentence in sentences])


def load_relevancy(path: Path, *, shape: tuple[int, int]) -> Matrix:
    """A matrix as JPoSE's pickles have it, float64 (clips, sentences). Raises BadInput for another shape, or for
    values that are not of 0 to 1."""
    found = load_plain(path)
    if not isinstance(found, np.ndarray) or found.shape != shape:
        seen = found.shape if isinstance(found, np.ndarray) else shown(found)
        raise BadInput(f"relevancy {path} is {seen}, wanted clips x sentences, {shape}: of another split?")
    if not (found.min() >= 0 and found.max() <= 1):
        raise BadInput(f"relevancy {path} has {found.min():g} to {found.max():g}, wanted 0 to 1")
    return found.astype(np.float64, copy=False)


class _Relevant(Sequence[str]):
    """The sentences that are right for a clip, found when they are asked for, and how relevant each is to it."""

    __slots__ = ("_numbers", "_row", "_sentences")

    def __init__(self, numbers: npt.NDArray[np.int64], sentences: Sequence[str], row: Matrix) -> None:
        """`row` are the clip's relevancies of all sentences, of which `numbers` are those that are right."""
        self._numbers, self._sentences, self._row = numbers, sentences, row

    def relevancy(self, at: int) -> float:
        """Of one of them to the clip."""
        return float(self._row[self._numbers[at]])

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return _Relevant(self._numbers[at], self._sentences, self._row)
        return self._sentences[int(self._numbers[at])]

    def __iter__(self) -> Iterator[str]:
        return (self._sentences[number] for number in self._numbers.tolist())


def relevant_texts(relevancy: Relevancy, sentences_path: Path) -> Callable[[int], Sequence[str]]:
    """Row of a clip → the sentences with a relevancy above POSITIVE. Raises BadInput, when it is called, for a clip
    that has none."""
    sentences = [sentence.narration for sentence in read_sentences(sentences_path)]

    def texts(row: int) -> Sequence[str]:
        rated = relevancy.row(row)
        numbers = np.flatnonzero(rated > POSITIVE)
        if not len(numbers):
            raise BadInput(f"clip {row} has no sentence with a relevancy above {POSITIVE} in {sentences_path}")
        return _Relevant(numbers, sentences, rated)

    return texts


def _side(clips: Sequence[EpicClip]) -> _Side:
    numbers: dict[frozenset[int], int] = {}
    set_of = [numbers.setdefault(clip.nouns, len(numbers)) for clip in clips]
    sets = np.zeros((len(numbers), NOUNS), np.float32)
    for nouns, number in numbers.items():
        sets[number, list(nouns)] = 1.0
    return _Side(verbs=np.array([clip.verb for clip in clips]), set_of=np.array(set_of), sets=sets)
