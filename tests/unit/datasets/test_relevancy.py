"""Relevancies of EPIC-Kitchens-100, from the real CSVs where they are at hand, and in training's draws."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from framefeed.errors import BadInput
from tests.manifests import manifest_of
from trainer_client.datasets.annotation import Annotation, text_of
from trainer_client.datasets.annotation import relevancy_of as drawn_relevancy
from trainer_client.datasets.epic_kitchens import read_clips
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.relevancy import load_relevancy, relevancy_of
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.mir_scores import mir_scores

EPIC = Path(__file__).parents[4] / "shared" / "data" / "epic-kitchens-100"
HEADER = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,narration,verb_class,noun_class,"
    "all_noun_classes\n"
)


def row(narration_id: str, verb: int, nouns: list[int]) -> str:
    return f'{narration_id},P01,P01_1,00:00:00.00,00:00:01.00,say {narration_id},{verb},{nouns[0]},"{nouns}"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clips = row("a", 1, [1, 2]) + row("b", 1, [3]) + row("c", 2, [1]) + row("d", 9, [9])
    (tmp_path / "EPIC_100_retrieval_train.csv").write_text(HEADER + clips)
    (tmp_path / "EPIC_100_retrieval_train_sentence.csv").write_text("narration_id,narration\nb,B\na,A\nd,D\n")
    return tmp_path


def test_relevancy_is_half_the_verb_and_half_the_nouns_in_common(folder: Path) -> None:
    clips, sentences = folder / "EPIC_100_retrieval_train.csv", folder / "EPIC_100_retrieval_train_sentence.csv"
    found = relevancy_of(clips, sentences)
    expected = [[0.5, 1.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.25, 0.0], [0.0, 0.0, 1.0]]
    assert found.shape == (4, 3)
    assert found.rows(np.arange(4)).tolist() == expected
    assert [found.row(clip).tolist() for clip in range(4)] == expected


def test_training_draws_any_sentence_that_is_relevant(folder: Path) -> None:
    spec = DataSpec(kind="ek100_mir", path=folder, cache=folder / "cache")
    dataset = open_dataset(spec, manifest_of({"P01/P01_1": 5.0}))
    targets = [dataset[index].target for index in range(4)]
    assert all(isinstance(target, Annotation) for target in targets)
    drawn = [{t.text(seed) for seed in range(60)} for t in targets if isinstance(t, Annotation)]
    assert drawn == [{"A", "B"}, {"A", "B"}, {"A"}, {"D"}]


def test_a_drawn_sentence_says_how_relevant_it_is_where_the_data_does(folder: Path) -> None:
    """An adaptive margin is by the relevancy of the very text that a clip's seed draws."""
    spec = DataSpec(kind="ek100_mir", path=folder, cache=folder / "cache")
    dataset = open_dataset(spec, manifest_of({"P01/P01_1": 5.0}))
    rated = [
        {(text_of(dataset[index].target, seed), drawn_relevancy(dataset[index].target, seed)) for seed in range(60)}
        for index in range(4)
    ]
    assert rated == [{("A", 1.0), ("B", 0.5)}, {("A", 0.5), ("B", 1.0)}, {("A", 0.25)}, {("D", 1.0)}]
    with pytest.raises(BadInput, match="row 7 of the annotations has no relevancies"):
        drawn_relevancy(Annotation(row=7, texts=("A",)), 0)


def test_sentences_of_another_split_and_wrong_matrices_are_refused(folder: Path, tmp_path: Path) -> None:
    clips, sentences = folder / "EPIC_100_retrieval_train.csv", folder / "EPIC_100_retrieval_train_sentence.csv"
    path = tmp_path / "relevancy.pkl"
    path.write_bytes(pickle.dumps(np.eye(4, 3)))
    assert load_relevancy(path, shape=(4, 3)).tolist() == np.eye(4, 3).tolist()
    for shape, value, line in (
        ((3, 3), np.eye(4, 3), r"is \(4, 3\), wanted clips x sentences, \(3, 3\): of another split"),
        ((4, 3), np.eye(4, 3) * 2, "has 0 to 2, wanted 0 to 1"),
        ((4, 3), [1, 2], "wanted clips x sentences"),
    ):
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(BadInput, match=line):
            load_relevancy(path, shape=shape)
    with pytest.raises(BadInput, match=r"missing\.pkl cannot be read: No such file"):
        load_relevancy(tmp_path / "missing.pkl", shape=(4, 3))
    once = clips.read_text()
    clips.write_text(once + once.splitlines()[1] + "\n")
    with pytest.raises(BadInput, match=r"line 2: narration_id '.*' comes again in line 6; wanted each once"):
        relevancy_of(clips, sentences)
    clips.write_text(once)
    sentences.write_text("narration_id,narration\nz,Z\n")
    with pytest.raises(BadInput, match=r"has z and 0 other sentences of clips that .* has not"):
        relevancy_of(clips, sentences)
    sentences.write_text("narration_id,narration\n")
    with pytest.raises(BadInput, match="has no row: an empty split"):
        relevancy_of(clips, sentences)
    sentences.unlink()
    with pytest.raises(BadInput, match=r"has none of EPIC_100_retrieval_train_sentence\.csv"):
        open_dataset(DataSpec(kind="ek100_mir", path=folder, cache=folder / "cache"), manifest_of({"P01/P01_1": 5.0}))


@pytest.mark.slow
@pytest.mark.skipif(not EPIC.is_dir(), reason="EPIC-Kitchens-100's annotations are not at hand")
def test_the_real_validation_set_has_the_published_densities() -> None:
    clips, sentences = EPIC / "EPIC_100_validation.csv", EPIC / "EPIC_100_retrieval_test_sentence.csv"
    found = relevancy_of(clips, sentences)
    whole = found.rows(np.arange(found.shape[0]))
    assert whole.shape == (9668, 3842)
    assert round(100 * float((whole > 0).mean()), 3) == 11.374
    assert round(100 * float((whole == 1).mean()), 5) == 0.16836
    assert (whole == 1).any(axis=0).all()
    assert (whole == 1).any(axis=1).all()
    assert len(read_clips(clips)) == 9668


@pytest.mark.slow
@pytest.mark.skipif(not EPIC.is_dir(), reason="EPIC-Kitchens-100's annotations are not at hand")
def test_who_knows_the_relevancies_scores_1_everywhere() -> None:
    found = relevancy_of(EPIC / "EPIC_100_validation.csv", EPIC / "EPIC_100_retrieval_test_sentence.csv")
    whole = found.rows(np.arange(found.shape[0]))
    assert set(mir_scores(whole, whole).named().values()) == {1.0}
