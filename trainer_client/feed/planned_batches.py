"""The plan's batches as requests: samples, seeds and stand-ins of each step. Holds no loader, knows no servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from framefeed.errors import BadInput, BadRequest
from framefeed.request import ClipRequest
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.prefetch import BatchPlan
from trainer_client.feed.sampler import Sampler
from trainer_client.feed.stand_ins import StandIns
from trainer_client.samples import Dataset, Sample


def planned_batches(
    steps: Iterator[int], dataset: Dataset, policies: Sequence[ClipPolicy], *, sampler: Sampler, stand_ins: StandIns
) -> Iterator[BatchPlan]:
    """These steps' batches, each by its bucket's policy and made when it is asked for.

    Raises BadInput for a sample that is no clip's.
    """
    for step in steps:
        places = sampler.batch(step)
        policy = policies[places.bucket]
        seeds, indices = places.seeds.tolist(), places.indices.tolist()
        samples = [dataset[index] for index in indices]
        standing_in = stand_ins.of(places)
        for row, stand_in in standing_in.items():
            samples[row], seeds[row], indices[row] = stand_in.sample, stand_in.seed, stand_in.index
        rows = zip(indices, samples, seeds, strict=True)
        requests = tuple(_request(policy, sample, seed, index=index) for index, sample, seed in rows)
        yield BatchPlan(places=places, samples=tuple(samples), requests=requests, policy=policy, stand_ins=standing_in)


def _request(policy: ClipPolicy, sample: Sample, seed: int, *, index: int) -> ClipRequest:
    try:
        return policy.request(sample, seed)
    except BadRequest as error:
        raise BadInput(f"sample {index} of the dataset: {error}") from None
