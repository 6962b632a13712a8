"""Mixtures: shares of an epoch, every sample used, each source's own policy; the same on all ranks, by the sampler."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from framefeed.crops import RandomResizedCrop, ResizedCentreCrop
from framefeed.errors import BadInput, BadRequest
from framefeed.sampling import Dense, Segments
from trainer_client.checked_dataset import CheckedDataset
from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.mixture import Mixture
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.samples import Sample
from trainer_client.source_policies import SourcePolicies


def samples(name: str, count: int) -> list[Sample]:
    return [Sample(video=f"{name}{at}", start_s=0.0, end_s=1.0) for at in range(count)]


def uses(mixture: Mixture) -> Counter[tuple[int, str]]:
    return Counter((sample.source, sample.video) for sample in (mixture[at] for at in range(len(mixture))))


def test_without_weights_they_stand_one_behind_the_other() -> None:
    mixture = Mixture([samples("a", 2), samples("b", 3)])
    assert [sample.video for sample in (mixture[at] for at in range(5))] == ["a0", "a1", "b0", "b1", "b2"]
    assert [sample.source for sample in (mixture[at] for at in range(5))] == [0, 0, 1, 1, 1]
    with pytest.raises(IndexError):
        mixture[5]


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (0.1, 0.7), (1, 1000)], ids=str)
def test_weights_are_the_shares_of_an_epoch_and_every_sample_is_used_evenly(weights: tuple[float, float]) -> None:
    mixture = Mixture([samples("a", 7), samples("b", 30)], weights=weights)
    found = uses(mixture)
    share = mixture.counts[0] / len(mixture)
    assert share == pytest.approx(weights[0] / sum(weights), abs=1 / min(mixture.counts))
    for source, size in ((0, 7), (1, 30)):
        times = [count for (of, _), count in found.items() if of == source]
        assert len(times) == size, "each is used"
        assert max(times) - min(times) <= 1
    assert 1 in {min(count for (of, _), count in found.items() if of == source) for source in (0, 1)}


def test_spans_at_once_are_those_of_each_sample() -> None:
    mixture = Mixture([samples("a", 7), samples("b", 30)], weights=(3, 1))
    spans = mixture.spans()
    assert [spans.videos[at] for at in spans.video_of] == [mixture[at].video for at in range(len(mixture))]
    assert spans.seconds.tolist() == [1.0] * len(mixture)


def test_shuffled_batches_hold_the_shares_and_ranks_share_the_same_ones() -> None:
    mixture = Mixture([samples("a", 100), samples("b", 1000)], weights=(1, 1))
    whole = Sampler(samples=len(mixture), run_seed=4, share=Share(batch_clips=64))
    halves = [
        Sampler(samples=len(mixture), run_seed=4, share=Share(batch_clips=32, rank=r, world_size=2)) for r in (0, 1)
    ]
    of_a = []
    for step in range(len(mixture) // 64):
        indices = whole.batch(step).indices
        assert np.array_equal(indices, np.concatenate([half.batch(step).indices for half in halves]))
        of_a.append(sum(mixture[index].source == 0 for index in indices.tolist()))
    assert 25 < np.mean(of_a) < 39


def test_what_cannot_be_mixed_is_refused() -> None:
    for datasets, weights, line in (
        ([], None, "wanted at least one each"),
        ([samples("a", 1), []], None, "wanted at least one each"),
        ([samples("a", 1)], (0.0,), "wanted a positive one for each|wanted a positive number for each"),
        ([samples("a", 1)], (1.0, 2.0), "of 1 data sets"),
        ([samples("a", 1)], (float("nan"),), "weights are"),
    ):
        with pytest.raises(BadInput, match=line):
            Mixture(datasets, weights=weights)


def test_each_source_has_its_policy() -> None:
    train = ClipPolicy(sampling=Segments(frames=4, jitter=True), crop=RandomResizedCrop(), width_px=64, height_px=64)
    dense = ClipPolicy(sampling=Dense(frames=4, stride=2), crop=ResizedCentreCrop(), width_px=64, height_px=64)
    both = SourcePolicies.of(train, dense)
    first, second = (Sample(video="v", start_s=0.0, end_s=1.0, source=source) for source in (0, 1))
    assert both.request(first, 7) == train.request(first, 7)
    assert both.request(second, 7) == dense.request(second, 7)
    assert both.shape == train.shape
    assert len({both.digest, train.digest, dense.digest, SourcePolicies.of(dense, train).digest}) == 4
    with pytest.raises(BadRequest, match="source 2, wanted 0 to 1"):
        both.request(Sample(video="v", start_s=0.0, end_s=1.0, source=2), 7)
    wide = ClipPolicy(sampling=Segments(frames=4), crop=ResizedCentreCrop(), width_px=96, height_px=64)
    with pytest.raises(BadRequest, match="a batch is one array"):
        SourcePolicies.of(train, wide)


def test_another_source_is_another_data_set_for_a_state() -> None:
    one, other = samples("a", 2), [*samples("a", 1), Sample(video="a1", start_s=0.0, end_s=1.0, source=1)]
    assert CheckedDataset(one).digest != CheckedDataset(other).digest
