"""The plan's batches as requests: samples, seeds and stand-ins of each step. Holds no loader, knows no servers."""

from __future__ import annotations

from collections.abc import Iterator

from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.prefetch import BatchPlan
from trainer_client.feed.sampler import Sampler
from trainer_client.feed.stand_ins import StandIns
from trainer_client.samples import Dataset


def planned_batches(
    steps: Iterator[int], dataset: Dataset, policy: ClipPolicy, *, sampler: Sampler, stand_ins: StandIns
) -> Iterator[BatchPlan]:
    """These steps' batches, each made when it is asked for."""
    for step in steps:
        places = sampler.batch(step)
        seeds = places.seeds.tolist()
        samples = [dataset[index] for index in places.indices.tolist()]
        standing_in = stand_ins.of(places)
        for row, stand_in in standing_in.items():
            samples[row], seeds[row] = stand_in.sample, stand_in.seed
        requests = tuple(policy.request(sample, seed) for sample, seed in zip(samples, seeds, strict=True))
        yield BatchPlan(places=places, samples=tuple(samples), requests=requests, stand_ins=standing_in)
