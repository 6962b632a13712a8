"""Batches come out whole and in plan order, whatever the order in which clips arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import CorruptMedia, FramefeedError
from tests.unit.client.clips import POLICY, info, plan
from trainer_client.feed.prefetch import Delivery, Prefetch
from trainer_client.feed.slots import SlotPool
from trainer_client.feed.stand_ins import Place, StandIn, place_of
from trainer_client.measures.wait import ClipLife
from trainer_client.samples import Sample


def prefetch(*, batch: int = 2, depth: int = 3) -> Prefetch:
    return Prefetch(SlotPool(batch * POLICY.clip_bytes, spare=depth), batch_clips=batch, depth_batches=depth)


def fill(target: Prefetch, ticket: int, *, at_s: float = 0.0) -> None:
    target.row(ticket)[:] = ticket
    target.fill(ticket, info(ticket), ClipLife(wanted_s=0, received_s=at_s))


def take(target: Prefetch) -> Delivery:
    delivery = target.peek()
    assert delivery is not None
    again = target.peek()
    assert again is not None
    assert (again.number, again.batch.step) == (delivery.number, delivery.batch.step)
    for _ in range(2):
        target.release(delivery.number)
    return delivery


@given(st.permutations(range(6)))
def test_batches_leave_in_plan_order(arrivals: list[int]) -> None:
    target = prefetch()
    tickets = [ticket for step in range(3) for ticket in target.open(plan(step))]
    assert tickets == list(range(6))
    steps = []
    for count, ticket in enumerate(arrivals):
        fill(target, ticket, at_s=count)
        while target.ready:
            delivery = take(target)
            batch = delivery.batch
            steps.append(batch.step)
            assert [int(clip.max()) for clip in batch.pixels] == [2 * batch.step, 2 * batch.step + 1]
            assert [i.read_bytes for i in batch.infos] == [2 * batch.step, 2 * batch.step + 1]
            assert batch.indices.tolist() == plan(batch.step).places.indices.tolist()
            assert batch.samples == plan(batch.step).samples
            assert delivery.last.received_s == max(arrivals.index(2 * batch.step + row) for row in (0, 1))
    assert steps == [0, 1, 2]
    assert target.empty


def test_room_is_what_the_depth_leaves() -> None:
    target = prefetch(depth=2)
    for step in range(2):
        target.open(plan(step))
    assert not target.has_room
    fill(target, 0)
    fill(target, 1)
    assert (target.held, target.has_room) == (2, False)
    take(target)
    assert (target.held, target.has_room) == (0, True)


def test_a_later_complete_batch_is_told() -> None:
    target = prefetch()
    for step in range(3):
        target.open(plan(step))
    for ticket, at_s in ((4, 1), (5, 2), (2, 3), (3, 4), (0, 5), (1, 6)):
        fill(target, ticket, at_s=at_s)
    assert target.later_ready_s == 2
    assert take(target).later_ready_s == 2
    assert take(target).later_ready_s == 2
    assert take(target).later_ready_s is None


def test_a_failed_clip_raises_at_its_batch_and_again() -> None:
    target = prefetch()
    for step in range(2):
        target.open(plan(step))
    target.fail(3, CorruptMedia("clip 3"))
    fill(target, 0)
    assert not target.ready
    fill(target, 1)
    assert take(target).batch.step == 0
    for _ in range(2):
        with pytest.raises(CorruptMedia, match="clip 3"):
            target.peek()
    assert target.ready
    assert not target.empty


def test_what_is_missing_is_the_oldest_batch_s() -> None:
    target = prefetch()
    assert target.missing == []
    for step in range(2):
        target.open(plan(step))
    fill(target, 3, at_s=2.0)
    fill(target, 2, at_s=1.0)
    assert target.missing == [0, 1]
    assert target.ready_last is None
    fill(target, 0)
    assert target.missing == [1]
    target.fail(1, CorruptMedia("clip 1"))
    assert target.missing == []
    assert target.limit_clips == 6


def test_a_batch_that_is_ready_says_what_completed_it() -> None:
    target = prefetch()
    target.open(plan(0))
    fill(target, 1, at_s=5.0)
    assert target.ready_last is None
    fill(target, 0, at_s=4.0)
    assert target.ready_last is take(target).last


def test_discarding_counts_what_had_come() -> None:
    target = prefetch()
    target.open(plan(0))
    target.open(plan(1))
    fill(target, 2)
    target.discard()
    assert target.empty


@given(st.permutations(range(12)), st.integers(1, 6), st.data())
def test_within_a_window_ready_batches_overtake_and_never_by_more(
    arrivals: list[int], window: int, data: st.DataObject
) -> None:
    target = Prefetch(SlotPool(2 * POLICY.clip_bytes, spare=6), batch_clips=2, depth_batches=6, window_batches=window)
    for step in range(6):
        target.open(plan(step))
    left: list[int] = []
    for ticket in arrivals:
        fill(target, ticket)
        while target.ready and data.draw(st.booleans()):
            step = take(target).batch.step
            undelivered = [other for other in range(6) if other not in left]
            assert step - undelivered[0] < window
            left.append(step)
    while not target.empty:
        left.append(take(target).batch.step)
    assert sorted(left) == list(range(6))
    assert window > 1 or left == list(range(6))
    for place, step in enumerate(left):
        assert abs(step - place) < max(window, 1)


def test_a_stuck_batch_is_overtaken_by_its_window_and_no_more() -> None:
    target = Prefetch(SlotPool(2 * POLICY.clip_bytes, spare=4), batch_clips=2, depth_batches=4, window_batches=3)
    for step in range(4):
        target.open(plan(step))
    for ticket in range(2, 8):
        fill(target, ticket, at_s=ticket)
    assert [take(target).batch.step for _ in range(2)] == [1, 2]
    assert not target.ready
    target.open(plan(4))
    assert target.peek() is None
    target.fail(0, CorruptMedia("clip 0"))
    with pytest.raises(CorruptMedia):
        target.peek()


def test_a_stand_in_takes_the_row_and_the_batch_says_so() -> None:
    target = prefetch()
    wanted = plan(0)
    target.open(wanted)
    stand_in = StandIn(
        position=int(wanted.places.positions[1]),
        failed=(int(wanted.places.indices[1]),),
        draw=0,
        index=9,
        seed=77,
        sample=Sample(video="other", start_s=1, end_s=2),
        reason="corrupt_media",
    )
    asked: list[object] = []

    def refill(place: Place, before: StandIn | None, error: FramefeedError) -> StandIn:
        asked.append((place, before))
        if before is not None:
            raise error
        return stand_in

    asked_for = POLICY.request(stand_in.sample, stand_in.seed)
    assert target.stand_in(1, refill, CorruptMedia("one")) == asked_for
    assert asked == [(place_of(wanted.places, 1), None)]
    fill(target, 0)
    fill(target, 1)
    batch = take(target).batch
    assert batch.stand_ins == (stand_in,)
    assert batch.indices.tolist() == [int(wanted.places.indices[0]), 9]
    assert batch.seeds.tolist() == [int(wanted.places.seeds[0]), 77]
    assert batch.samples == (wanted.samples[0], stand_in.sample)
    assert wanted.places.indices.tolist() == plan(0).places.indices.tolist(), "the plan stays"
    target.open(plan(1))
    assert target.stand_in(2, refill, CorruptMedia("two")) == asked_for
    assert target.stand_in(2, refill, CorruptMedia("three")) is None
    with pytest.raises(CorruptMedia, match="three"):
        target.peek()
