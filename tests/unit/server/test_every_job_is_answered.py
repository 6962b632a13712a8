"""Whatever clients, workers and readers do, each offered job gets one reply, and no byte is held that has no owner.

The real admission, outbox and buffer pool over a fake transport, fake workers and a fake clock, put together as the
front does; Hypothesis plays everybody else.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from decode_server.service.admission import Admission, Job, Limits
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.listeners.listener import ReaderFull, ReaderGone
from decode_server.service.outbox import Outbox, Outgoing, Pixels
from decode_server.service.range_allocator import ALIGN_BYTES, Buffer
from decode_server.service.run_shares import RunShares

CLIENTS = (b"a", b"b", b"c")
LIMITS = Limits(requests=6)
PAGES, WORKERS, LEASE_S = 16, 3, 2.0


class QueuedReply:
    """A clip on its way to its reader."""

    def __init__(self, client: bytes, buffer_bytes: int) -> None:
        self.client = client
        self.done = False
        self.buffer_bytes = buffer_bytes


class Post:
    """Readers that are quick, full or gone; what each was sent is kept by the number of the job."""

    def __init__(self) -> None:
        self.full: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.sent: Counter[int] = Counter()
        self.queued_replies: list[QueuedReply] = []

    def cut(self, client: bytes) -> None:
        self.gone.add(client)
        for queued_reply in self.queued_replies:
            queued_reply.done = queued_reply.done or queued_reply.client == client
        self.queued_replies = [queued_reply for queued_reply in self.queued_replies if not queued_reply.done]

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> QueuedReply | None:
        if client in self.gone:
            raise ReaderGone
        if client in self.full:
            raise ReaderFull
        self.sent[int(header)] += 1
        if pixels is None:
            return None
        self.queued_replies.append(QueuedReply(client, len(pixels)))
        return self.queued_replies[-1]


class ReplyCounter:
    """Counts what the outbox says it dropped."""

    def __init__(self) -> None:
        self.dropped_replies = 0

    def replied(self, outcome: str, sent_bytes: int) -> None:
        """Counted by the post."""

    def dropped(self, reason: str) -> None:
        self.dropped_replies += 1

    def wasted(self, reason: str) -> None:
        """Not looked at."""


class Office(RuleBasedStateMachine):
    """Jobs are offered, started, finished, lost and expired; readers stall, read on and go."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.post, self.counter, self.buffer_pool = Post(), ReplyCounter(), BufferPool(PAGES * ALIGN_BYTES)
        self.admission = Admission(LIMITS, RunShares())
        self.outbox = Outbox(self.post, self.buffer_pool, self.counter, lease_s=LEASE_S)
        self.working: list[tuple[Job, Buffer]] = []
        self.offered: list[Job] = []
        self.forgotten = 0

    def turn(self) -> None:
        for late in self.admission.expire(now_s=self.now_s):
            self.refuse(late)
        while len(self.working) < WORKERS:
            job = self.admission.first(blocked=self.blocked)
            buffer = self.buffer_pool.ranges.allocate(job.clip_bytes, owner=job.client) if job else None
            if job is None or buffer is None:
                break
            together = [(job, buffer)]
            for companion in self.admission.companions(job):
                buffer = self.buffer_pool.ranges.allocate(companion.clip_bytes, owner=companion.client)
                together += [(companion, buffer)] if buffer else []
            for started, _ in together:
                self.admission.take(started)
            self.working += together
        for client in self.outbox.tend(self.now_s):
            self.forgotten += len(self.admission.forget(client))

    def blocked(self, job: Job) -> bool:
        in_share = self.buffer_pool.ranges.within_share(job.client, job.clip_bytes)
        return self.outbox.blocks(job.client) or not in_share

    def refuse(self, job: Job) -> None:
        self.outbox.put(self.error(job), now_s=self.now_s)

    def error(self, job: Job) -> Outgoing:
        return Outgoing(client=job.client, outcome="error", header=str(job.id).encode())

    @rule(client=st.sampled_from(CLIENTS), pages=st.integers(1, 6), lasts_s=st.sampled_from([0.0, 0.5, 3.0, 100.0]))
    def offer(self, client: bytes, pages: int, lasts_s: float) -> None:
        job = Job(
            id=len(self.offered),
            client=client,
            attempt=len(self.offered),
            what="a clip",
            header=b"",
            clip_bytes=pages * ALIGN_BYTES,
            received_s=self.now_s,
            due_s=self.now_s + lasts_s,
            frames=pages,
        )
        self.offered.append(job)
        refused = self.admission.offer(job, now_s=self.now_s)
        if refused is not None:
            self.refuse(refused[0])
        self.turn()

    @precondition(lambda self: self.working)
    @rule(data=st.data(), how=st.sampled_from(["clip", "clip for one who stalled", "clip for one who left", "error"]))
    def finish(self, data: st.DataObject, how: str) -> None:
        job, buffer = self.working.pop(data.draw(st.integers(0, len(self.working) - 1)))
        self.admission.ended(job, 0.1)
        if how.endswith("stalled"):
            self.post.full.add(job.client)
        elif how.endswith("left"):
            self.post.gone.add(job.client)
        if how == "error":
            self.buffer_pool.ranges.free(buffer)
            self.refuse(job)
        else:
            reply = Outgoing(
                client=job.client,
                outcome="clip",
                header=str(job.id).encode(),
                pixels=Pixels(buffer=buffer, clip_bytes=job.clip_bytes, due_s=job.due_s),
                late=lambda: self.error(job),
            )
            self.outbox.put(reply, now_s=self.now_s)
        self.turn()

    @rule(after_s=st.sampled_from([0.0, 0.01, 0.6, 5.0]))
    def time_passes(self, after_s: float) -> None:
        self.now_s += after_s
        self.turn()

    @rule(client=st.sampled_from(CLIENTS))
    def stall(self, client: bytes) -> None:
        self.post.full.add(client)

    @rule(client=st.sampled_from(CLIENTS))
    def read_on(self, client: bytes) -> None:
        self.post.full.discard(client)
        self.turn()

    @rule(client=st.sampled_from(CLIENTS))
    def go(self, client: bytes) -> None:
        self.post.gone.add(client)
        self.turn()

    @rule(client=st.sampled_from(CLIENTS))
    def come(self, client: bytes) -> None:
        self.post.gone.discard(client)

    @precondition(lambda self: self.post.queued_replies)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        self.post.queued_replies.pop(data.draw(st.integers(0, len(self.post.queued_replies) - 1))).done = True
        self.turn()

    @precondition(lambda self: self.offered)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A job may be cancelled whether it is queued, being decoded or over."""
        wanted = data.draw(st.sampled_from(self.offered))
        job = self.admission.cancel(wanted.client, wanted.attempt)
        if job is not None:
            self.refuse(job)
        self.turn()

    @rule()
    def drain(self) -> None:
        self.admission.draining = True
        for job in self.admission.clear():
            self.refuse(job)

    @rule()
    def serve_again(self) -> None:
        self.admission.draining = False

    @invariant()
    def no_job_has_two_replies_and_each_is_somewhere(self) -> None:
        assert not self.post.sent or max(self.post.sent.values()) == 1
        answered = len(self.post.sent) + self.counter.dropped_replies + self.forgotten
        assert len(self.offered) == answered + len(self.admission) + len(self.working) + self.outbox.waiting

    @invariant()
    def the_queue_keeps_its_bounds(self) -> None:
        assert len(self.admission) <= LIMITS.requests + len(CLIENTS)

    @invariant()
    def the_buffer_pool_holds_what_somebody_owns(self) -> None:
        used_bytes = self.buffer_pool.ranges.used_bytes
        owned_bytes = sum(buffer.length_bytes for _, buffer in self.working) + sum(
            p.buffer_bytes for p in self.post.queued_replies
        )
        assert owned_bytes <= used_bytes <= self.buffer_pool.ranges.total_bytes
        if not self.outbox.waiting and self.outbox.in_transit == len(self.post.queued_replies):
            assert used_bytes == owned_bytes

    def teardown(self) -> None:
        """When everybody reads and time passes, all is answered and all memory is free."""
        self.post.full.clear()
        self.drain()
        for job, buffer in self.working:
            self.buffer_pool.ranges.free(buffer)
            self.refuse(job)
        self.working.clear()
        for queued_reply in self.post.queued_replies:
            queued_reply.done = True
        self.post.queued_replies.clear()
        for _ in range(3):
            self.now_s += 1000.0
            self.turn()
            for queued_reply in self.post.queued_replies:
                queued_reply.done = True
            self.post.queued_replies.clear()
        self.no_job_has_two_replies_and_each_is_somewhere()
        assert self.outbox.waiting == len(self.admission) == self.buffer_pool.ranges.used_bytes == 0
        self.buffer_pool.close()


TestOffice = Office.TestCase
TestOffice.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
