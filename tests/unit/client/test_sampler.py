"""The plan of a run: every sample once an epoch, the same global batches for any ranks, resumed from one integer."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefeed.draws import clip_seed
from framefeed.errors import BadInput
from trainer_client.feed.sampler import Sampler, Share


def sampler(samples: int, *, batch: int, rank: int = 0, world: int = 1, seed: int = 5) -> Sampler:
    return Sampler(samples=samples, run_seed=seed, share=Share(batch_clips=batch, rank=rank, world_size=world))


def global_batch(samples: int, step: int, *, batch: int, world: int) -> list[tuple[int, int, int, int]]:
    rows = []
    for rank in range(world):
        b = sampler(samples, batch=batch, rank=rank, world=world).batch(step)
        rows += zip(b.positions.tolist(), b.epochs.tolist(), b.indices.tolist(), b.seeds.tolist(), strict=True)
    return rows


@given(samples=st.integers(1, 60), batch=st.integers(1, 25), epochs=st.integers(1, 3))
def test_each_sample_is_used_once_an_epoch(samples: int, batch: int, epochs: int) -> None:
    plan = sampler(samples, batch=batch)
    batches = [plan.batch(step) for step in range(plan.steps_in(epochs))]
    places = np.concatenate([b.positions for b in batches])
    assert places.tolist() == list(range(len(places)))
    assert epochs * samples <= len(places) < epochs * samples + batch
    used = np.concatenate([b.indices for b in batches])
    for epoch in range(epochs):
        assert sorted(used[epoch * samples : (epoch + 1) * samples].tolist()) == list(range(samples))


@given(
    samples=st.integers(1, 60), step=st.integers(0, 40), share=st.integers(1, 4), worlds=st.permutations([1, 2, 3, 6])
)
def test_global_batches_do_not_depend_on_the_world_size(samples: int, step: int, share: int, worlds: list[int]) -> None:
    total = 6 * share
    first, second = worlds[:2]
    assert global_batch(samples, step, batch=total // first, world=first) == (
        global_batch(samples, step, batch=total // second, world=second)
    )


@given(samples=st.integers(1, 60), done=st.integers(0, 30), world=st.sampled_from([1, 2, 4]))
def test_a_resumed_plan_goes_on_with_another_world_size(samples: int, done: int, world: int) -> None:
    state = sampler(samples, batch=4).state_at(done)
    step = sampler(samples, batch=4 // world, rank=world - 1, world=world).step_of(state)
    assert step == done
    assert global_batch(samples, step, batch=4 // world, world=world) == global_batch(samples, done, batch=4, world=1)


def test_any_step_can_be_asked_in_any_order() -> None:
    plan = sampler(7, batch=3)
    steps = [9, 0, 4, 9, 1, 8]
    for step in steps:
        assert plan.batch(step).indices.tolist() == sampler(7, batch=3).batch(step).indices.tolist()


def test_seeds_are_those_of_the_contract() -> None:
    batch = sampler(10, batch=4, seed=99).batch(4)
    assert batch.seeds.tolist() == [
        clip_seed(99, epoch=e, index=i) for e, i in zip(batch.epochs.tolist(), batch.indices.tolist(), strict=True)
    ]


def test_epochs_and_runs_have_orders_of_their_own() -> None:
    orders = {tuple(sampler(50, batch=50, seed=seed).batch(step).indices) for seed in (1, 2) for step in (0, 1, 2)}
    assert len(orders) == 6


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (sampler(11, batch=4), "samples is 10 in the state and 11 here"),
        (sampler(10, batch=4, seed=6), "run_seed is 5 in the state and 6 here"),
        (sampler(10, batch=4, world=2), "global_batch_clips is 4 in the state and 8 here"),
    ],
)
def test_a_state_of_another_plan_is_refused_with_both_values(other: Sampler, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        other.step_of(sampler(10, batch=4).state_at(3))


@pytest.mark.parametrize("position", [-4, 3, None, "8", 2.0, 2**63, 10**30])
def test_a_damaged_position_is_refused(position: object) -> None:
    state = {**sampler(10, batch=4).state_at(0), "position": position}
    with pytest.raises(BadInput, match="multiple of the global batch 4 below"):
        sampler(10, batch=4).step_of(state)


def test_what_makes_no_plan_is_refused() -> None:
    with pytest.raises(BadInput, match="batch_clips is 0"):
        Share(batch_clips=0)
    with pytest.raises(BadInput, match="rank is 2 of 2"):
        Share(batch_clips=1, rank=2, world_size=2)
    with pytest.raises(BadInput, match="0 samples"):
        sampler(0, batch=1)
    with pytest.raises(BadInput, match="run_seed is -1"):
        sampler(1, batch=1, seed=-1)


@given(samples=st.integers(1, 60), batch=st.integers(1, 25), step=st.integers(0, 30), world=st.sampled_from([1, 3]))
def test_without_shuffling_each_epoch_is_in_the_datasets_order(samples: int, batch: int, step: int, world: int) -> None:
    share = Share(batch_clips=batch, rank=world - 1, world_size=world)
    planned = Sampler(samples=samples, run_seed=5, share=share, shuffle=False).batch(step)
    assert planned.indices.tolist() == (planned.positions % samples).tolist()
    pairs = zip(planned.epochs.tolist(), planned.indices.tolist(), strict=True)
    assert planned.seeds.tolist() == [clip_seed(5, epoch=epoch, index=index) for epoch, index in pairs]


STATE = {"version": 2, "position": 12, "run_seed": 5, "samples": 10, "global_batch_clips": 4}


def test_the_state_of_a_shuffled_run_is_these_numbers() -> None:
    assert sampler(10, batch=4).state_at(3) == STATE
    assert sampler(10, batch=4).step_of(STATE) == 3


@pytest.mark.parametrize(
    ("version", "shown"), [(1, "1"), (3, "3"), (None, "None"), ("2", "'2'"), ([[7]] * 900, "list of 900")]
)
def test_a_state_of_another_order_is_refused_by_its_version(version: object, shown: str) -> None:
    with pytest.raises(BadInput, match=f"saved by framefeed's order of version {shown}, wanted 2: ") as refused:
        sampler(10, batch=4).step_of({**STATE, "version": version})
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="order of version None, wanted 2"):
        sampler(10, batch=4).step_of({name: value for name, value in STATE.items() if name != "version"})


def test_a_run_goes_on_with_or_without_shuffling_as_it_began() -> None:
    ordered = Sampler(samples=10, run_seed=5, share=Share(batch_clips=4), shuffle=False)
    assert ordered.step_of(ordered.state_at(3)) == 3
    with pytest.raises(BadInput, match="shuffle is False in the state and True here"):
        sampler(10, batch=4).step_of(ordered.state_at(3))
    with pytest.raises(BadInput, match="shuffle is True in the state and False here"):
        ordered.step_of(sampler(10, batch=4).state_at(3))


MANY = 100_000_000  # samples of the largest runs; no multiple of their global batch of 8 ranks x 64 clips


def at_the_boundary(world: int, *, steps: int = 8) -> list[list[tuple[int, int, int, int]]]:
    first = MANY // 512 - steps // 2
    return [global_batch(MANY, step, batch=512 // world, world=world) for step in range(first, first + steps)]


def test_all_ranks_take_one_order_over_the_boundary_of_long_epochs() -> None:
    together = at_the_boundary(8)
    assert together == at_the_boundary(1)
    rows = [row for batch in together for row in batch]
    assert {epoch for _, epoch, _, _ in rows} == {0, 1}
    for epoch in (0, 1):
        indices = [index for _, of, index, _ in rows if of == epoch]
        assert len(set(indices)) == len(indices) > 1000
        assert 0 <= min(indices) < MANY // 100 < MANY - MANY // 100 < max(indices) < MANY
    assert [seed for *_, seed in rows] == [clip_seed(5, epoch=epoch, index=index) for _, epoch, index, _ in rows]


@pytest.mark.parametrize("samples", [1, 1000, MANY, 2**40])
def test_a_plan_takes_a_batch_s_memory_whatever_it_is_of_and_keeps_none(samples: int) -> None:
    """64 clips of 8 ranks, before, at and after the end of an epoch; a sorted order would be 8 bytes a sample."""
    plan = sampler(samples, batch=64, rank=3, world=8)
    middle = samples // 512
    steps = range(max(middle - 20, 0), middle + 20)
    plan.batch(steps[0])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for step in steps:
            plan.batch(step)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 100 * 64 * 8, "some arrays of a batch"
    assert after - before < 4096


def test_the_longest_run_ends_where_positions_do() -> None:
    plan = sampler(2**63 - 1, batch=64, world=8)
    last = plan.step_of({**plan.state_at(0), "position": 2**63 - 512})
    batch = sampler(2**63 - 1, batch=64, rank=7, world=8).batch(last)
    assert batch.positions.tolist() == list(range(2**63 - 64, 2**63))
    assert batch.epochs.tolist() == [0] * 63 + [1]
    assert len(set(batch.indices[:63].tolist())) == 63
    assert 0 <= batch.indices.min() < 2**62 < batch.indices.max() < 2**63 - 1


@pytest.mark.parametrize(
    ("samples", "batch", "epochs", "steps"),
    [(10, 11, 1.1, 1), (10, 4, 1, 3), (3 * 2**60 + 1, 3, 1, 2**60 + 1), (30, 3, 0.1, 1), (10, 3, 0, 0)],
)
def test_steps_are_reckoned_with_the_epochs_as_written(samples: int, batch: int, epochs: float, steps: int) -> None:
    assert sampler(samples, batch=batch).steps_in(epochs) == steps


SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=5)


def bucketed(sizes: list[int], *, batch: int, rank: int = 0, world: int = 1, shuffle: bool = True) -> Sampler:
    """Buckets of so many samples, whose numbers are mixed."""
    owners = np.random.default_rng(3).permutation(np.repeat(np.arange(len(sizes)), sizes))
    members = [np.flatnonzero(owners == bucket) for bucket in range(len(sizes))]
    share = Share(batch_clips=batch, rank=rank, world_size=world)
    return Sampler(samples=sum(sizes), run_seed=9, share=share, shuffle=shuffle, buckets=members)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, batch=st.integers(1, 9), epochs=st.integers(1, 4), shuffle=st.booleans())
def test_buckets_use_every_sample_once_an_epoch_and_each_batch_is_of_one(
    sizes: list[int], batch: int, epochs: int, shuffle: bool
) -> None:
    plan = bucketed(sizes, batch=batch, shuffle=shuffle)
    steps = plan.steps_in(epochs)
    used: Counter[tuple[int, int]] = Counter()
    for step in range(steps):
        found = plan.batch(step)
        assert set(found.indices.tolist()) <= set(plan._buckets[found.bucket].tolist())
        used.update(zip(found.epochs.tolist(), found.indices.tolist(), strict=True))
    assert set(used.values()) == {1}, "no clip twice"
    assert {(e, i) for e in range(epochs) for i in range(sum(sizes))} <= used.keys()
    assert len(used) - epochs * sum(sizes) < len(sizes) * batch, "at most a part of a batch of each bucket is more"


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, batch=st.integers(1, 5), first=st.integers(0, 10**12))
def test_ranks_are_in_the_same_bucket_and_share_its_batch(sizes: list[int], batch: int, first: int) -> None:
    whole = bucketed(sizes, batch=2 * batch)
    halves = [bucketed(sizes, batch=batch, rank=rank, world=2) for rank in (0, 1)]
    for step in range(first, first + 5):
        wanted, found = whole.batch(step), [half.batch(step) for half in halves]
        assert [half.bucket for half in found] == [wanted.bucket] * 2
        for name in ("positions", "epochs", "indices", "seeds"):
            parts = [getattr(half, name) for half in found]
            assert np.array_equal(np.concatenate(parts), getattr(wanted, name))


def test_steps_of_buckets_are_shuffled_anew_in_each_epoch() -> None:
    plan = bucketed([24, 36], batch=2)
    epochs = [[plan.batch(step).bucket for step in range(30 * e, 30 * e + 30)] for e in range(4)]
    assert [epoch.count(0) for epoch in epochs] == [12] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert plan.batch(7).bucket == bucketed([24, 36], batch=2).batch(7).bucket


def test_buckets_of_other_samples_are_refused() -> None:
    with pytest.raises(BadInput, match="buckets have 3 samples, wanted the dataset's 4"):
        Sampler(samples=4, run_seed=0, share=Share(batch_clips=1), buckets=[np.arange(3)])


def test_what_is_written_into_a_batch_changes_no_other() -> None:
    plan = sampler(100, batch=4)
    first = plan.batch(0)
    expected = [sampler(100, batch=4).batch(step).indices.tolist() for step in range(3)]
    for column in (first.positions, first.epochs, first.indices, first.seeds):
        column[:] = 77
    assert [plan.batch(step).indices.tolist() for step in range(3)] == expected
    assert plan.batch(0).positions.tolist() == [0, 1, 2, 3]
