"""What EPIC-Kitchens-100's scores need beside labels: relevancies and sentences, the tail and the unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from framefeed.errors import BadInput
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.epic_kitchens import clips_file, read_clips, read_ids, read_sentences, sentences_file
from trainer_client.datasets.numerals import whole_in
from trainer_client.datasets.relevancy import load_relevancy, relevancy_of
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.class_scores import Subsets
from trainer_client.evaluate.scorers import MirData

_UNSEEN, _TAIL = "EPIC_100_unseen_participant_ids_validation.csv", "EPIC_100_tail_{}s.csv"


def mir_data(spec: DataSpec, dataset: AnnotatedDataset, relevancy: Path | None) -> MirData:
    """The sentences, and how relevant they are to each sample. Raises BadInput for a pickle of relevancies that is not
    there or of another split.
    """
    reckoned = relevancy_of(clips_file(spec), sentences_file(spec))
    if relevancy is None:
        rows = reckoned.rows(dataset.rows)
    else:
        rows = load_relevancy(relevancy, shape=reckoned.shape)[dataset.rows]
    sentences = [sentence.narration for sentence in read_sentences(sentences_file(spec))]
    return MirData(sentences=sentences, relevancy=rows)


def epic_subsets(spec: DataSpec, dataset: AnnotatedDataset) -> Subsets | None:
    """The tail and the unseen of the validation split; None where the folder does not have all three files.

    Raises BadInput for a file with another header or another value than a class.
    """
    own = clips_file(spec)
    names = {name: own.with_name(_TAIL.format(name)) for name in ("verb", "noun")}
    unseen = own.with_name(_UNSEEN)
    if not all(path.is_file() for path in (*names.values(), unseen)):
        return None
    people = read_ids(unseen, "participant_id")
    clips = read_clips(own)
    tail = {name: _tail(path, name, classes=len(dataset.classes[name])) for name, path in names.items()}
    unseen_N = np.array([clips[row].participant in people for row in dataset.rows.tolist()])
    return Subsets(tail=tail, unseen_N=unseen_N)


def _tail(path: Path, name: str, *, classes: int) -> frozenset[int]:
    try:
        found = frozenset(map(whole_in, read_ids(path, name)))
    except ValueError as error:
        raise BadInput(f"tail classes {path} are no numbers: {error}") from None
    if strange := sorted(found - set(range(classes))):
        raise BadInput(f"tail classes {path} have {strange[0]}, wanted 0 to {classes - 1}")
    if not found:
        raise BadInput(f"tail classes {path} have none, wanted one at least")
    return found
