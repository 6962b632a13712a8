"""Batches come out whole and in plan order, whatever the order in which clips arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import CorruptMedia
from tests.unit.client.clips import POLICY, info, plan
from trainer_client.prefetch import Delivery, Prefetch
from trainer_client.slots import SlotPool
from trainer_client.wait import ClipLife


def prefetch(*, batch: int = 2, depth: int = 3) -> Prefetch:
    return Prefetch(SlotPool((batch, *POLICY.shape), spare=depth), depth_batches=depth)


def fill(target: Prefetch, ticket: int, *, at_s: float = 0.0) -> None:
    target.row(ticket)[:] = ticket
    target.fill(ticket, info(ticket), ClipLife(wanted_s=0, sent_s=0, received_s=at_s))


def take(target: Prefetch) -> Delivery:
    delivery = target.take()
    assert delivery is not None
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
    assert target.take() is not None
    assert (target.held, target.has_room) == (0, True)


def test_a_later_complete_batch_is_told() -> None:
    target = prefetch()
    for step in range(3):
        target.open(plan(step))
    for ticket, at_s in ((4, 1), (5, 2), (2, 3), (3, 4), (0, 5), (1, 6)):
        fill(target, ticket, at_s=at_s)
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
            target.take()
    assert target.ready
    assert not target.empty


def test_discarding_counts_what_had_come() -> None:
    target = prefetch()
    target.open(plan(0))
    target.open(plan(1))
    fill(target, 2)
    assert target.discard() == 1
    assert target.empty
