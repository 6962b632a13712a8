"""Scores against the golden file, plain reckoning, and by hand; ties go to the earlier one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from framefeed.errors import BadInput
from trainer_client.evaluate.class_scores import ActionParts, Subsets, class_mean, epic_scores, softmax, top_k
from trainer_client.evaluate.mir_scores import mir_scores
from trainer_client.evaluate.retrieval_scores import choices, recalls

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "golden" / "ek100_mir_metrics.json"


def relevancy(case: dict[str, list[list[int]]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array(
        [
            [
                0.5 * (verb == other) + 0.5 * len({*nouns} & {*others}) / len({*nouns} | {*others})
                for other, others in zip(case["verb_text"], case["nouns_text"], strict=True)
            ]
            for verb, nouns in zip(case["verb_video"], case["nouns_video"], strict=True)
        ]
    )


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden file is not at hand")
def test_golden() -> None:
    cases = json.loads(GOLDEN.read_text())
    assert cases
    for case in cases:
        found = mir_scores(np.array(case["similarity"]), relevancy(case)).named()
        for name, value in case["expected"].items():
            assert found[name] == pytest.approx(value, abs=1e-9)


def test_average_precision_adds_up_graded_relevancy() -> None:
    found = mir_scores(np.array([[3.0, 2.0, 1.0]]), np.array([[0.5, 1.0, 1.0]]))
    assert found.map_v2t == pytest.approx((1.5 / 2 + 2.5 / 3) / 2)
    gains = 0.5 + 1 / np.log2(3) + 1 / 2
    assert found.ndcg_v2t == pytest.approx(gains / (1 + 1 / np.log2(3) + 0.5 / 2))


def test_ties_are_ranked_in_the_order_of_the_columns() -> None:
    first = mir_scores(np.zeros((1, 3)), np.array([[1.0, 0.0, 0.0]]))
    last = mir_scores(np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]))
    assert (first.map_v2t, last.map_v2t) == (1.0, pytest.approx(1 / 3))
    assert top_k(np.zeros((2, 4)), np.array([0, 3], np.int32), 1) == 0.5
    assert recalls(np.zeros((2, 2)), np.array([0, 1]), ks=(1,))["R@1_v2t"] == 0.5
    assert recalls(np.zeros((2, 2)), np.array([0, 1]), ks=(1,))["R@1_t2v"] == 0.5


def test_a_query_that_nothing_is_relevant_to_has_no_gain_and_a_precision_of_0() -> None:
    found = mir_scores(np.eye(2), np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert (found.map_v2t, found.ndcg_v2t) == (0.5, 1.0)
    with pytest.raises(BadInput, match="no query has anything relevant"):
        mir_scores(np.eye(2), np.zeros((2, 2)))


def test_shapes_and_numbers_are_checked() -> None:
    with pytest.raises(BadInput, match=r"similarities are \(2, 2\), relevancies \(2, 3\)"):
        mir_scores(np.eye(2), np.ones((2, 3)))
    with pytest.raises(BadInput, match="no finite number"):
        mir_scores(np.array([[np.nan]]), np.ones((1, 1)))


def test_top_k_and_class_means_agree_with_plain_reckoning() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=(200, 7)), generator.integers(0, 7, 200).astype(np.int32)
    order = np.argsort(-scores, axis=1, kind="stable")
    for k in (1, 5):
        assert top_k(scores, labels, k) == pytest.approx(
            np.mean([y in row[:k] for y, row in zip(labels, order, strict=True)])
        )
    right = scores.argmax(axis=1) == labels
    assert class_mean(scores, labels) == pytest.approx(
        np.mean([right[labels == k].mean() for k in set(labels.tolist())])
    )


def test_verbs_and_nouns_are_summed_up_from_actions() -> None:
    parts = ActionParts.read(["0:0", "0:2", "1:2"], verbs=3, nouns=3)
    verbs, nouns = parts.marginal(np.array([[0.5, 0.2, 0.3]]))
    assert verbs.tolist() == [[0.7, 0.3, 0.0]]
    assert nouns.tolist() == [[0.5, 0.0, 0.5]]
    with pytest.raises(BadInput, match="wanted VERB:NOUN"):
        ActionParts.read(["take plate"], verbs=1, nouns=1)
    with pytest.raises(BadInput, match="beyond 1 and 3"):
        ActionParts.read(["1:2"], verbs=1, nouns=3)


def test_subsets_of_epic_kitchens() -> None:
    verbs = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels = {"verb": np.array([0, 1, 1], np.int32)}
    subsets = Subsets(tail={"verb": frozenset({1}), "noun": frozenset()}, unseen_N=np.array([True, False, False]))
    found = epic_scores({"verb": verbs}, labels, subsets)
    assert found["verb_top1"] == pytest.approx(2 / 3)
    assert found["unseen_verb_top1"] == 1.0
    assert found["tail_verb_class_mean"] == 0.5
    with pytest.raises(BadInput, match="class 2 is unknown to the model, which has 0 to 1"):
        epic_scores({"verb": verbs}, {"verb": np.array([0, 1, 2], np.int32)})
    with pytest.raises(BadInput, match="no sample to score"):
        epic_scores({"verb": verbs[:0]}, {"verb": np.array([], np.int32)})


def test_texts_that_several_clips_share() -> None:
    similarity = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.5]])
    found = recalls(similarity, np.array([0, 1, 0]), ks=(1, 2))
    assert found["R@1_v2t"] == pytest.approx(2 / 3)
    assert (found["R@2_v2t"], found["R@1_t2v"], found["median_rank_t2v"]) == (1.0, 1.0, 1.0)


def test_the_nearest_clip_is_chosen_whatever_the_order_of_rows() -> None:
    videos = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, 0.8]])
    texts = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    questions, numbers = np.array([4, 4, 7, 7]), np.array([0, 1, 1, 0])
    chosen = choices(videos, texts, question_V=questions, choice_V=numbers)
    assert chosen == {4: 1, 7: 0}
    back = choices(videos[::-1], texts[::-1], question_V=questions[::-1], choice_V=numbers[::-1])
    assert back == chosen


def test_softmax_of_large_logits() -> None:
    assert softmax(np.array([[1000.0, 1000.0]])).tolist() == [[0.5, 0.5]]
