"""Admission against a fake clock, and against a plain model of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from decode_server.service.admission import TOGETHER, Admission, Job, Limits
from framefeed.errors import BadInput, Busy, DeadlineExceeded, Draining


def job(
    id: int,
    *,
    client: bytes = b"a",
    clip_bytes: int = 10,
    due_s: float = 100.0,
    frames: str = "",
    alone: bool = False,
    header: bytes = b"",
) -> Job:
    return Job(
        id=id,
        client=client,
        attempt=id,
        what=f"v{id} [0, 1) s",
        header=header,
        clip_bytes=clip_bytes,
        received_s=0.0,
        due_s=due_s,
        frames=frames or id,
        alone=alone,
    )


def nobody(job: Job) -> bool:
    return False


def drained(admission: Admission) -> list[int]:
    ids = []
    while (first := admission.first(blocked=nobody)) is not None:
        admission.take(first)
        ids.append(first.id)
    return ids


def test_one_client_is_served_in_order() -> None:
    admission = Admission(Limits(requests=10, clip_bytes=1000))
    for id in range(5):
        assert admission.offer(job(id, due_s=100.0 - id), now_s=0) is None
    assert drained(admission) == [0, 1, 2, 3, 4]
    assert (len(admission), admission.queued_bytes) == (0, 0)


def test_clients_take_turns() -> None:
    admission = Admission(Limits(requests=10, clip_bytes=1000))
    for id in range(4):
        admission.offer(job(id, client=b"greedy"), now_s=0)
    admission.offer(job(10, client=b"modest"), now_s=0)
    assert drained(admission) == [0, 10, 1, 2, 3]


def test_a_client_that_does_not_read_is_passed_over_and_keeps_its_place() -> None:
    admission = Admission(Limits(requests=10, clip_bytes=1000))
    admission.offer(job(0, client=b"slow"), now_s=0)
    admission.offer(job(1, client=b"quick"), now_s=0)
    first = admission.first(blocked=lambda job: job.client == b"slow")
    assert first is not None
    assert first.id == 1
    assert admission.first(blocked=lambda job: True) is None
    assert drained(admission) == [0, 1]


def test_full_of_requests_or_bytes_is_busy_at_once() -> None:
    admission = Admission(Limits(requests=2, clip_bytes=100))
    assert admission.offer(job(0, clip_bytes=60), now_s=0) is None
    assert isinstance(admission.offer(job(1, clip_bytes=60), now_s=0), Busy)
    assert admission.offer(job(2, clip_bytes=40), now_s=0) is None
    assert admission.full
    assert isinstance(admission.offer(job(3, clip_bytes=0), now_s=0), Busy)


def test_a_clip_larger_than_the_byte_limit_may_wait_alone() -> None:
    admission = Admission(Limits(requests=2, clip_bytes=100))
    assert admission.offer(job(0, clip_bytes=1000), now_s=0) is None


def test_no_time_left_is_refused_and_a_passed_deadline_expires() -> None:
    admission = Admission(Limits(requests=10, clip_bytes=1000))
    assert isinstance(admission.offer(job(0, due_s=5.0), now_s=5.0), DeadlineExceeded)
    admission.offer(job(1, due_s=7.0), now_s=5.0)
    admission.offer(job(2, due_s=6.0), now_s=5.0)
    assert admission.next_due_s == 6.0
    assert admission.expire(now_s=5.9) == []
    assert [gone.id for gone in admission.expire(now_s=6.0)] == [2]
    assert admission.next_due_s == 7.0
    assert [gone.id for gone in admission.expire(now_s=8.0)] == [1]
    assert math.isinf(admission.next_due_s)


def test_draining_refuses_the_new_and_keeps_the_old() -> None:
    admission = Admission(Limits(requests=10, clip_bytes=1000))
    admission.offer(job(0), now_s=0)
    admission.draining = True
    assert isinstance(admission.offer(job(1), now_s=0), Draining)
    assert drained(admission) == [0]


def test_limits_of_nothing_are_refused() -> None:
    with pytest.raises(BadInput, match="0 requests"):
        Limits(requests=0, clip_bytes=1)


def test_jobs_of_the_same_frames_are_companions() -> None:
    admission = Admission(Limits(requests=100, clip_bytes=100_000))
    first = job(0, frames="f")
    jobs = [
        first,
        job(1, frames="f"),
        job(2, frames="g"),
        job(3, frames="f"),
        job(4, frames="f", alone=True),
        job(5, frames="f", client=b"other"),
        job(6, frames="f", header=bytes(5000)),
    ]
    for offered in jobs:
        assert admission.offer(offered, now_s=0) is None
    assert [companion.id for companion in admission.companions(first)] == [1, 3]
    assert admission.companions(jobs[2]) == []
    assert admission.companions(jobs[4]) == [], "a job that is to be alone has none either"
    for taken in (first, *admission.companions(first)):
        admission.take(taken)
    assert drained(admission) == [5, 2, 4, 6]


def test_companions_are_few_and_near() -> None:
    admission = Admission(Limits(requests=100, clip_bytes=100_000))
    jobs = [job(id, frames="f" if id < 20 or id == 90 else "") for id in range(100)]
    for offered in jobs:
        admission.offer(offered, now_s=0)
    assert [companion.id for companion in admission.companions(jobs[0])] == list(range(1, TOGETHER))
    for taken in jobs[1:20]:
        admission.take(taken)
    assert admission.companions(jobs[0]) == [], "it would overtake seventy others"


class AdmissionModel(RuleBasedStateMachine):
    """Whatever the order of events, every job offered is refused, taken, expired, forgotten or still queued: once."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(Limits(requests=6, clip_bytes=100))
        self.now_s = 0.0
        self.ids = 0
        self.queued: dict[int, Job] = {}

    @rule(client=st.sampled_from([b"a", b"b", b"c"]), clip_bytes=st.integers(0, 60), left_s=st.integers(-1, 5))
    def offer(self, client: bytes, clip_bytes: int, left_s: int) -> None:
        self.ids += 1
        offered = job(self.ids, client=client, clip_bytes=clip_bytes, due_s=self.now_s + left_s)
        if self.admission.offer(offered, now_s=self.now_s) is None:
            assert left_s > 0
            self.queued[offered.id] = offered

    @rule(seconds=st.integers(1, 3))
    def expire(self, seconds: int) -> None:
        self.now_s += seconds
        gone = {gone.id for gone in self.admission.expire(now_s=self.now_s)}
        assert gone == {id for id, queued in self.queued.items() if queued.due_s <= self.now_s}
        for id in gone:
            del self.queued[id]

    @precondition(lambda self: self.queued)
    @rule(blocked=st.sets(st.sampled_from([b"a", b"b", b"c"])))
    def take(self, blocked: set[bytes]) -> None:
        first = self.admission.first(blocked=lambda job: job.client in blocked)
        wanted = [queued for queued in self.queued.values() if queued.client not in blocked]
        assert (first is None) == (not wanted)
        if first is not None:
            assert first.id == min(queued.id for queued in wanted if queued.client == first.client)
            self.admission.take(first)
            del self.queued[first.id]

    @rule(client=st.sampled_from([b"a", b"b", b"c"]))
    def forget(self, client: bytes) -> None:
        gone = {gone.id for gone in self.admission.forget(client)}
        assert gone == {id for id, queued in self.queued.items() if queued.client == client}
        for id in gone:
            del self.queued[id]

    @rule()
    def clear(self) -> None:
        assert {gone.id for gone in self.admission.clear()} == set(self.queued)
        self.queued.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.admission) == len(self.queued) <= 6
        assert self.admission.queued_bytes == sum(queued.clip_bytes for queued in self.queued.values())
        assert self.admission.next_due_s <= min((queued.due_s for queued in self.queued.values()), default=math.inf)


TestAdmissionModel = AdmissionModel.TestCase
TestAdmissionModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
