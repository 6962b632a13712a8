"""Admission against a fake clock, and against a plain model of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from decode_server.service.admission import EVALS_IN_A_ROW, TOGETHER, Admission, Job, Limits, WorkClass
from decode_server.service.run_shares import RunShares
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
    run: str = "",
    work_class: WorkClass = "train",
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
        run=run,
        work_class=work_class,
    )


def admission_of(requests: int) -> Admission:
    return Admission(Limits(requests=requests), RunShares())


def nobody(job: Job) -> bool:
    return False


def drained(admission: Admission) -> list[int]:
    ids = []
    while (first := admission.first(blocked=nobody)) is not None:
        admission.take(first)
        admission.ended(first, 1.0)
        ids.append(first.id)
    return ids


def test_one_client_is_served_in_order() -> None:
    admission = admission_of(10)
    for id in range(5):
        assert admission.offer(job(id, due_s=100.0 - id), now_s=0) is None
    assert drained(admission) == [0, 1, 2, 3, 4]
    assert len(admission) == 0


def test_clients_take_turns() -> None:
    admission = admission_of(10)
    for id in range(4):
        admission.offer(job(id, client=b"greedy"), now_s=0)
    admission.offer(job(10, client=b"modest"), now_s=0)
    assert drained(admission) == [0, 10, 1, 2, 3]


def test_a_client_that_does_not_read_is_passed_over_and_keeps_its_place() -> None:
    admission = admission_of(10)
    admission.offer(job(0, client=b"slow"), now_s=0)
    admission.offer(job(1, client=b"quick"), now_s=0)
    first = admission.first(blocked=lambda job: job.client == b"slow")
    assert first is not None
    assert first.id == 1
    assert admission.first(blocked=lambda job: True) is None
    assert drained(admission) == [0, 1]


def test_alone_a_client_may_have_all_places_and_in_a_full_queue_who_has_most_makes_room() -> None:
    admission = admission_of(8)
    for id in range(9):
        assert admission.offer(job(id, client=b"greedy"), now_s=0) is None, "its own place and all of the eight"
    refused = admission.offer(job(9, client=b"greedy"), now_s=0)
    assert refused is not None
    assert (refused[0].id, type(refused[1])) == (9, Busy)
    assert "9 of the 9 requests that wait are yours" in str(refused[1])
    assert admission.full
    for number in range(50):
        assert admission.offer(job(100 + number, client=bytes([number])), now_s=0) is None, "each has a place"
    assert not admission.full
    pushed_out = [admission.offer(job(200 + number, client=b"\0"), now_s=0) for number in range(6)]
    assert [refused and refused[0].id for refused in pushed_out] == [8, 7, 6, 5, 204, 205], "none would have more now"
    assert admission.full
    first = admission.first(blocked=nobody)
    assert first is not None
    admission.take(first)
    assert not admission.full
    assert admission.offer(job(300, client=b"greedy"), now_s=0) is None


def test_evaluation_goes_first_and_training_has_a_turn_now_and_then() -> None:
    admission = admission_of(1000)
    for id in range(3):
        admission.offer(job(id, client=b"trainer"), now_s=0)
    for id in range(100, 100 + 2 * EVALS_IN_A_ROW):
        admission.offer(job(id, client=b"evaluator", work_class="eval"), now_s=0)
    ids = drained(admission)
    turns = [place for place, id in enumerate(ids) if id < 100]
    assert turns == [EVALS_IN_A_ROW, 2 * EVALS_IN_A_ROW + 1, 2 * EVALS_IN_A_ROW + 2]


def test_an_evaluation_that_does_not_read_does_not_hold_up_training() -> None:
    admission = admission_of(10)
    admission.offer(job(0, client=b"evaluator", work_class="eval"), now_s=0)
    admission.offer(job(1, client=b"trainer"), now_s=0)
    first = admission.first(blocked=lambda job: job.client == b"evaluator")
    assert first is not None
    assert first.id == 1


def test_a_cancelled_request_is_out_of_the_queue_once() -> None:
    admission = admission_of(10)
    for id in range(3):
        admission.offer(job(id), now_s=0)
    admission.offer(job(1, client=b"b"), now_s=0)
    gone = admission.cancel(b"a", 1)
    assert gone is not None
    assert (gone.client, gone.id) == (b"a", 1)
    assert admission.cancel(b"a", 1) is None
    assert admission.cancel(b"stranger", 1) is None
    assert sorted(drained(admission)) == [0, 1, 2]


def test_no_time_left_is_refused_and_a_passed_deadline_expires() -> None:
    admission = admission_of(10)
    refused = admission.offer(job(0, due_s=5.0), now_s=5.0)
    assert refused is not None
    assert isinstance(refused[1], DeadlineExceeded)
    admission.offer(job(1, due_s=7.0), now_s=5.0)
    admission.offer(job(2, due_s=6.0), now_s=5.0)
    assert admission.next_due_s == 6.0
    assert admission.expire(now_s=5.9) == []
    assert [gone.id for gone in admission.expire(now_s=6.0)] == [2]
    assert admission.next_due_s == 7.0
    assert [gone.id for gone in admission.expire(now_s=8.0)] == [1]
    assert math.isinf(admission.next_due_s)


def test_draining_refuses_the_new_and_keeps_the_old() -> None:
    admission = admission_of(10)
    admission.offer(job(0), now_s=0)
    admission.draining = True
    refused = admission.offer(job(1), now_s=0)
    assert refused is not None
    assert isinstance(refused[1], Draining)
    assert drained(admission) == [0]


def test_limits_of_nothing_are_refused() -> None:
    with pytest.raises(BadInput, match="0 requests"):
        Limits(requests=0)


def test_jobs_of_the_same_frames_are_companions() -> None:
    admission = admission_of(100)
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
    admission = admission_of(100)
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
        self.admission = admission_of(6)
        self.now_s = 0.0
        self.ids = 0
        self.queued: dict[int, Job] = {}
        self.working: dict[int, Job] = {}

    @rule(
        client=st.sampled_from([b"a", b"b", b"c"]),
        run=st.sampled_from(["one", "two"]),
        work_class=st.sampled_from(["train", "eval"]),
        left_s=st.integers(-1, 5),
    )
    def offer(self, client: bytes, run: str, work_class: WorkClass, left_s: int) -> None:
        self.ids += 1
        offered = job(self.ids, client=client, run=run, work_class=work_class, due_s=self.now_s + left_s)
        clients = [queued.client for queued in self.queued.values()]
        refused, error = self.admission.offer(offered, now_s=self.now_s) or (None, None)
        if refused is not offered:
            assert left_s > 0
            self.queued[offered.id] = offered
        else:
            assert left_s <= 0 or client in clients, "a client's first request is refused"
        if isinstance(error, Busy) and refused is not None:
            assert len(clients) - len({*clients}) == 6, "a place is free"
            had = [*clients, client]
            assert had.count(refused.client) == max(map(had.count, had)), "another has more"
            self.queued.pop(refused.id, None)

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
            line = [q for q in wanted if (q.client, q.run, q.work_class) == (first.client, first.run, first.work_class)]
            assert first.id == min(queued.id for queued in line)
            self.admission.take(first)
            del self.queued[first.id]
            self.working[first.id] = first

    @precondition(lambda self: self.working)
    @rule(data=st.data(), took_s=st.sampled_from([None, 0.0, 0.1, 9.0]))
    def end(self, data: st.DataObject, took_s: float | None) -> None:
        self.admission.ended(self.working.pop(data.draw(st.sampled_from(sorted(self.working)))), took_s)

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        wanted = self.queued.pop(data.draw(st.sampled_from(sorted(self.queued))))
        assert self.admission.cancel(wanted.client, wanted.attempt) is wanted

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
        clients = {queued.client for queued in self.queued.values()}
        assert len(self.admission) == len(self.queued) <= 6 + len(clients)
        assert self.admission.next_due_s <= min((queued.due_s for queued in self.queued.values()), default=math.inf)


TestAdmissionModel = AdmissionModel.TestCase
TestAdmissionModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
