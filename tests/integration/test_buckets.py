"""Clips of three sizes and two lengths in one run, from a real server: the same bytes on one rank, two, and resumed.

Videos show their frames' numbers, and samples are of half a second and of two.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from framefeed.crops import WholeFrame
from framefeed.errors import BadInput
from framefeed.manifest import read_manifest
from framefeed.sampling import Segments
from tests.integration.made_roots import root_of_shapes, small_server
from tests.integration.serving import Server
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.feed.buckets import BucketRule, Buckets, ClipLengths, ShortSide, into_buckets
from trainer_client.feed.stand_ins import PoisonOptions
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample

SIZES = {"wide": (192, 128), "high": (128, 192), "square": (160, 160)}
SHAPES = {(frames, y, x) for frames in (4, 8) for y, x in ((64, 96), (96, 64), (64, 64))}
SPANS_S = [(at / 2, at / 2 + 0.5) for at in range(4)] + [(0.0, 2.0), (0.5, 2.5), (1.0, 3.0)]
DATASET = [Sample(video=name, start_s=start_s, end_s=end_s) for name in SIZES for start_s, end_s in SPANS_S]
RULE = BucketRule(
    size=ShortSide(short_side_px=64, long_side_px=128), lengths=ClipLengths(frames=(4, 8), frames_per_s=4)
)
BATCH, EPOCHS = 2, 2
Print = tuple[int, int, str]
"""Epoch, index and pixels' digest of a clip."""


def _policy(*, frames: int, height_px: int, width_px: int) -> ClipPolicy:
    sampling = Segments(frames=frames, jitter=True)
    return ClipPolicy(
        sampling=sampling, crop=WholeFrame(), width_px=width_px, height_px=height_px, interpolation="bicubic"
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of_shapes(tmp_path_factory.mktemp("shapes"), SIZES, frames=100)


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("logs"), root) as one:
        yield one


@pytest.fixture(scope="module")
def buckets(root: Path) -> Buckets:
    return into_buckets(DATASET, read_manifest(root), RULE, _policy)


def open_rank(
    server: Server, buckets: Buckets, *, dataset: list[Sample] = DATASET, rank: int = 0, world: int = 1, **options: Any
) -> ClipLoader:
    chosen: dict[str, Any] = {"epochs": EPOCHS, "run_seed": 5, "attempt_s": 20.0, "stall_s": 60.0, **options}
    return ClipLoader(
        dataset,
        buckets,
        LoaderOptions(
            servers=[server.endpoint], batch_clips=BATCH // world, rank=rank, world_size=world, local_ranks=1, **chosen
        ),
    )


def prints(batch: Batch) -> list[Print]:
    digests = [hashlib.sha256(clip.tobytes()).hexdigest() for clip in batch.pixels]
    return list(zip(batch.epochs.tolist(), batch.indices.tolist(), digests, strict=True))


@pytest.fixture(scope="module")
def undisturbed(server: Server, buckets: Buckets) -> list[list[Print]]:
    shapes, found = set(), list[list[Print]]()
    with open_rank(server, buckets) as loader:
        assert loader.steps == len(SIZES) * (4 + 3)
        for batch in loader:
            shapes.add(batch.pixels.shape[1:4])
            found.append(prints(batch))
            assert batch.pixels.std() > 10
            for row, sample in enumerate(batch.samples):
                assert batch.pixels.shape[1] == (8 if sample.end_s - sample.start_s > 1 else 4)
                assert all(sample.start_s <= at_s < sample.end_s for at_s in batch.infos[row].pts_s)
        assert loader.stats.conserved
    assert shapes == SHAPES
    return found


def test_every_sample_is_used_once_an_epoch(undisturbed: list[list[Print]]) -> None:
    used = Counter((epoch, index) for batch in undisturbed for epoch, index, _ in batch)
    assert {(epoch, index) for epoch in range(EPOCHS) for index in range(len(DATASET))} <= used.keys()
    assert set(used.values()) == {1}


def test_two_ranks_give_the_same_batches_in_as_many_steps(
    server: Server, buckets: Buckets, undisturbed: list[list[Print]]
) -> None:
    with ExitStack() as stack:
        ranks = [stack.enter_context(open_rank(server, buckets, rank=rank, world=2)) for rank in (0, 1)]
        assert [loader.steps for loader in ranks] == [len(undisturbed)] * 2
        found = [[prints(batch) for batch in loader] for loader in ranks]
    assert [first + second for first, second in zip(*found, strict=True)] == undisturbed


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_that_resumes_within_an_epoch_on_other_ranks_goes_on_byte_for_byte(
    server: Server, buckets: Buckets, undisturbed: list[list[Print]], before: int, after: int
) -> None:
    done = len(undisturbed) // 3
    with ExitStack() as stack:
        ranks = [stack.enter_context(open_rank(server, buckets, rank=r, world=before)) for r in range(before)]
        first = [[prints(next(loader)) for _ in range(done)] for loader in ranks]
        state = ranks[0].state_dict()
    with ExitStack() as stack:
        ranks = [stack.enter_context(open_rank(server, buckets, rank=r, world=after)) for r in range(after)]
        for loader in ranks:
            loader.load_state_dict(state)
        rest = [[prints(batch) for batch in loader] for loader in ranks]
    joined = [[*chain(*parts)] for parts in (*zip(*first, strict=True), *zip(*rest, strict=True))]
    assert joined == undisturbed


def test_what_stands_in_has_the_shape_of_its_batch(server: Server, buckets: Buckets) -> None:
    """Whatever bucket it is of itself: the last sample of a bucket has no other there."""
    lost = [*DATASET[:-3], *[replace(sample, video="gone") for sample in DATASET[-3:]]]
    poison = PoisonOptions(policy="replace", budget=3)
    with open_rank(server, buckets, dataset=lost, poison=poison) as loader:
        batches = list(loader)
    stood_in = [(batch, stand_in) for batch in batches for stand_in in batch.stand_ins]
    assert len(stood_in) == 3 * EPOCHS
    assert {batch.pixels.shape[1:4] for batch, _ in stood_in} == {(8, 64, 64)}
    assert {stand_in.sample.video for _, stand_in in stood_in} <= SIZES.keys()


def test_other_buckets_are_another_run(root: Path, server: Server, buckets: Buckets) -> None:
    others = into_buckets(
        DATASET, read_manifest(root), BucketRule(size=RULE.size, lengths=ClipLengths(frames=(4,))), _policy
    )
    with open_rank(server, buckets) as loader:
        state = loader.state_dict()
    with open_rank(server, others) as loader, pytest.raises(BadInput, match="the policy makes other clips"):
        loader.load_state_dict(state)


def test_what_wants_one_shape_is_told(server: Server, buckets: Buckets) -> None:
    with open_rank(server, buckets) as loader, pytest.raises(BadInput, match=r"clips are of shapes .* wanted one"):
        loader.batch_shape  # noqa: B018
