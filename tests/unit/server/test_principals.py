"""Budgets by principal: its many connections get what a node's ranks would where others wait, and else all there is."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from decode_server.service.admission import FIRST_PLACES, RUNS_OF_PRINCIPAL, Admission, Limits
from decode_server.service.credits import Credits
from decode_server.service.range_allocator import ALIGN_BYTES, RangeAllocator
from decode_server.service.refusals import LINES_OF_ONE_AT_ONCE, Refusals
from decode_server.service.run_shares import RunShares
from framefeed.errors import Busy
from tests.unit.server.test_admission import Job, job, nobody


def of(principal: str, client: str, id: int, *, run: str = "") -> Job:
    return replace(job(id, client=client.encode(), run=run), principal=principal)


def flooded(requests: int, connections: int) -> tuple[Admission, int]:
    """A queue that one principal has filled over many connections; and the next id."""
    admission, id = Admission(Limits(requests=requests), RunShares()), 0
    for _ in range(requests // connections + 2):
        for connection in range(connections):
            admission.offer(of("flood", f"f{connection}", id), now_s=0)
            id += 1
    return admission, id


def test_alone_a_principal_has_all_the_places() -> None:
    admission, _ = flooded(256, 50)
    assert len(admission) == 256 + 50


def test_fifty_connections_of_one_principal_count_as_eight_ranks_beside_another() -> None:
    admission, id = flooded(256, 50)
    queued = 0
    for number in range(200):
        refused = admission.offer(of("honest", "h", id + number), now_s=0)
        queued += refused is None or refused[0].principal == "flood"
        assert refused is None or isinstance(refused[1], Busy)
    assert queued >= (256 + 50) / 9 - 1, "it pushed the flood's out up to its fair share"
    turns: Counter[str] = Counter()
    for _ in range(100):
        first = admission.first(blocked=nobody)
        assert first is not None
        admission.take(first)
        admission.ended(first, 0.01)
        turns[first.principal] += 1
    assert turns["honest"] in (11, 12)


def test_all_ranks_have_equal_turns_and_credits_however_they_are_spread_over_nodes() -> None:
    admission, credits_, id = Admission(Limits(requests=600), RunShares()), Credits(lambda _: 1.0, queue=600), 0
    credits_.decoded(0.01, 1000)
    nodes = {"eight": 8, "four": 4, "one": 1}
    for node, ranks in nodes.items():
        for rank in range(ranks):
            for _ in range(40):
                admission.offer(of(node, f"{node}{rank}", id := id + 1), now_s=0)
                credits_.asked(f"{node}{rank}".encode(), "", 1.0, principal=node)
    turns: Counter[bytes] = Counter()
    for _ in range(13 * 20):
        first = admission.first(blocked=nobody)
        assert first is not None
        admission.take(first)
        admission.ended(first, 0.01)
        turns[first.client] += 1
    assert len(turns) == 13
    assert set(turns.values()) == {20}
    granted = {credits_.granted(client, 9.0, slots=4) for client in turns}
    assert len(granted) == 1
    assert granted.pop() == pytest.approx(credits_.total(4) / 13, abs=1)


def test_ranks_of_one_principal_share_evenly() -> None:
    admission, id = Admission(Limits(requests=64), RunShares()), 0
    for rank in range(8):
        for _ in range(64):
            admission.offer(of("trainer", f"r{rank}", id := id + 1), now_s=0)
    turns: Counter[bytes] = Counter()
    while (first := admission.first(blocked=nobody)) is not None:
        admission.take(first)
        admission.ended(first, 0.01)
        turns[first.client] += 1
    assert sum(turns.values()) == 64 + 8
    assert max(turns.values()) - min(turns.values()) <= 1


def test_connections_without_end_get_no_places_without_end() -> None:
    admission = Admission(Limits(requests=10), RunShares())
    for id in range(3 * FIRST_PLACES):
        admission.offer(of("flood", f"f{id}", id), now_s=0)
    assert len(admission) == FIRST_PLACES + 10
    assert admission.forget(b"f3")
    assert len(admission) == FIRST_PLACES + 9
    assert admission.offer(of("honest", "h", 10_000), now_s=0) is None, "another still has its first place"


def test_names_of_runs_are_no_shares() -> None:
    admission = Admission(Limits(requests=1000), RunShares())
    named = []
    for id in range(100):
        run = admission.run_name(f"run{id}", "flood")
        named.append(run)
        admission.offer(of("flood", "f", id, run=run), now_s=0)
    assert len(set(named)) == RUNS_OF_PRINCIPAL + 1
    assert admission.run_name("training", "honest") == "training"


def test_buffers_are_shared_by_principal_where_others_wait() -> None:
    ranges = RangeAllocator(1024 * ALIGN_BYTES)
    for number in range(2000):
        owner = b"f%d" % (number % 500)
        if ranges.within_share(owner, ALIGN_BYTES, principal="flood"):
            assert ranges.allocate(ALIGN_BYTES, owner=owner, principal="flood")
    free = 1024 - ranges.used_bytes // ALIGN_BYTES
    assert 16 <= free <= 128, "alone it has nearly all, and leaves some for who comes"
    assert ranges.within_share(b"h", ALIGN_BYTES * free, principal="honest", shares=1)
    assert not ranges.within_share(b"new", ALIGN_BYTES, principal="flood", shares=8)


def test_credits_are_by_principal() -> None:
    credits_ = Credits(lambda _: 1.0, queue=256)
    credits_.decoded(0.01, 1000)
    for connection in range(50):
        for _ in range(20):
            credits_.asked(b"f%d" % connection, "", 1.0, principal="flood")
    for _ in range(100):
        credits_.asked(b"h", "", 1.0, principal="honest")
    total = credits_.total(4)
    assert credits_.granted(b"h", 9.0, slots=4) >= total / 9 - 1
    credits_.gone(b"h")
    assert credits_.granted(b"f1", 20.0, slots=4) >= 1


def test_one_principal_does_not_use_up_the_lines_of_all(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(CollectorRegistry(), clock=lambda: 0.0)
    with caplog.at_level(logging.WARNING, "framefeed.serve"):
        for _ in range(1000):
            refusals.refuse("bad_request", "client 1", "\x1b[2Jno", principal="flood")
        refusals.refuse("bad_request", "client 2", "no", principal="honest")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == LINES_OF_ONE_AT_ONCE + 1
    assert lines[-1].startswith("refused client 2")
    assert all(line.isprintable() for line in lines)
