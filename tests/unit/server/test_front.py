"""The front's loop over a fake transport and fake workers: what it waits for, and that it never waits in vain."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from decode_server.service.admission import Admission, Job, Limits
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.credits import Credits
from decode_server.service.front import Front
from decode_server.service.front_parts import FrontLimits, Parts
from decode_server.service.index_watch import IndexWatch
from decode_server.service.lifecycle import Lifecycle
from decode_server.service.listeners.listener import Listeners, ReaderFull
from decode_server.service.metrics import Capacity, Metrics
from decode_server.service.range_allocator import Buffer
from decode_server.service.refusals import Refusals
from decode_server.service.run_shares import RunShares
from decode_server.service.workers.worker_events import Event, Finished
from decode_server.service.workers.worker_messages import Done, Effort
from decode_server.service.workers.worker_pool import WorkerPool
from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import FramefeedError
from framefeed.wire import DecodeCall, ErrorReply, pack_call, unpack_reply
from tests.integration.serving import PATIENCE_S, request

CLIENT = b"client"


class QueuedReply:
    """Delivered at the next look but one."""

    def __init__(self) -> None:
        self._looks = 0

    @property
    def done(self) -> bool:
        self._looks += 1
        return self._looks > 2


class FakeListeners:
    """One client that asks for everything at once, and is full at every `full_every`-th reply, once."""

    def __init__(self, calls: int, *, full_every: int) -> None:
        self.calls = deque(
            pack_call(DecodeCall(attempt=attempt, deadline_s=60.0, request=request())) for attempt in range(calls)
        )
        self.sent = 0
        self._full_every = full_every
        self._was_full = False
        self.waits_s: list[float] = []
        self.headers: list[bytes] = []
        self.cuts: list[bytes] = []

    def clients(self) -> list[tuple[str, int, int]]:
        return [("fake://", 1, 1)]

    def number(self, client: bytes) -> int:
        return 0

    def principal(self, client: bytes) -> str:
        return client.decode()

    def cut(self, client: bytes) -> None:
        self.cuts.append(client)

    def watch(self, fd: int) -> None:
        assert fd == -1

    def has_woken(self, fd: int) -> bool:
        assert fd == -1
        return False

    def wait(self, timeout_s: float, *, gather_s: float = 0.0) -> None:
        del gather_s
        self.waits_s.append(timeout_s)
        time.sleep(min(max(timeout_s, 0.0), 0.002))

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        first_turn = len(self.waits_s) == 1  # in which the server is not ready yet
        return (CLIENT, [self.calls.popleft()]) if self.calls and not first_turn else None

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> QueuedReply | None:
        assert client == CLIENT
        if pixels is None:
            self.headers.append(header)  # an error, or the drain notice
            return None
        if self.sent % self._full_every == 1 and not self._was_full:
            self._was_full = True
            raise ReaderFull
        self.sent, self._was_full = self.sent + 1, False
        return QueuedReply()

    def close(self, *, linger_s: float) -> None:
        pass


class FakePool:
    """Does `room` jobs at a time; each is done at the next poll."""

    fingerprint, videos, capacity, size, ready, restarts, stuck_reads, zombies = "fake", 1, 1, 1, 1, 0, 0, 0
    dataset = "v1-1"

    def __init__(self, *, room: int) -> None:
        self._room = room
        self._running: list[Sequence[tuple[Job, Buffer]]] = []
        self.together: list[int] = []

    @property
    def unanswered(self) -> int:
        return sum(map(len, self._running))

    busy = unanswered

    def fileno(self) -> int:
        return -1

    @property
    def room(self) -> int:
        return max(self._room - len(self._running), 0)

    def parts_with_room(self) -> Iterator[int]:
        return iter((0,) if self.room else ())

    def start(self, together: Sequence[tuple[Job, Buffer]], *, part: int) -> None:
        assert part == 0
        self._running.append(together)
        self.together.append(len(together))

    def poll(self, now_s: float) -> list[Event]:
        running, self._running = [one for together in self._running for one in together], []
        done = [
            Done(job.id, "clip", b"header", "fake", 1, {}, Effort(0.001, now_s, {}, [], (1, 0))) for job, _ in running
        ]
        return [Finished(job, buffer, end, 0, "") for (job, buffer), end in zip(running, done, strict=True)]

    def next_timer_s(self, now_s: float) -> float:
        return now_s + (0.0 if self._running else 1000.0)  # a worker's descriptor, in short

    def hopeless(self) -> None:
        return None

    def abandon(self) -> list[Job]:
        return []


class FakeIndexWatch:
    outdated = ""


class FakeStops:
    count, last = 0, "SIGTERM"

    def fileno(self) -> int:
        return -1

    def clear(self) -> None:
        pass


class Asked(Admission):
    """An admission that fails over every fifth request, and notes until when it was to keep the others."""

    due_s: list[float]

    def offer(self, job: Job, *, now_s: float) -> tuple[Job, FramefeedError] | None:
        self.due_s = [*getattr(self, "due_s", []), job.due_s - now_s]
        if job.attempt % 5 == 0:
            raise RuntimeError("an oversight")
        return super().offer(job, now_s=now_s)


def front_of(
    listeners: FakeListeners,
    pool: FakePool,
    stops: FakeStops,
    *,
    buffer_pool: BufferPool,
    admission: Admission | None = None,
    deadline_s: float = 60.0,
) -> Front:
    metrics = Metrics(Capacity(queue=100, workers=1, buffer_pool_bytes=1, threads={0: 1}))
    parts = Parts(
        listeners=cast(Listeners, listeners),
        admission=Admission(Limits(requests=100), RunShares()) if admission is None else admission,
        buffer_pool=buffer_pool,
        pool=cast(WorkerPool, pool),
        metrics=metrics,
        stops=cast(StopSignals, stops),
        lifecycle=Lifecycle(),
        refusals=Refusals(metrics.registry),
        credits=Credits(RunShares().weight, queue=100),
        index_watch=cast(IndexWatch, FakeIndexWatch()),
    )
    return Front(
        parts,
        server="fake",
        limits=FrontLimits(drain_s=5.0, lease_s=30.0, deadline_s=deadline_s),
        on_ready=lambda _: None,
        on_drain=lambda: None,
    )


@pytest.mark.parametrize("room", [1, 5])
@pytest.mark.parametrize("pool_pages", [2, 64])
@pytest.mark.parametrize("full_every", [2, 3])
def test_the_front_never_waits_while_a_job_could_start(room: int, pool_pages: int, full_every: int) -> None:
    """A reader that was full for a moment, or a pool that was, has no event of its own when it is so no longer."""
    listeners, pool, stops = FakeListeners(20, full_every=full_every), FakePool(room=room), FakeStops()
    buffer_pool = BufferPool(pool_pages * 8192)
    front = front_of(listeners, pool, stops, buffer_pool=buffer_pool)
    wait = listeners.wait
    began_s = time.monotonic()

    def watched(timeout_s: float, *, gather_s: float = 0.0) -> None:
        assert (gather_s == 0) == (pool.room > 0), "calls gather only while no worker has room"
        assert time.monotonic() < began_s + PATIENCE_S, front
        assert timeout_s < 0.1 or not front.in_flight, f"it waits {timeout_s} s, and {front!r}"
        stops.count = int(listeners.sent == 20)
        wait(timeout_s)

    listeners.wait = watched  # type: ignore[method-assign]
    front.run()
    assert listeners.sent == 20
    assert max(pool.together) <= (8 if room == 1 else 20 // room), "a thread has more than its share of the queue"
    assert pool_pages == 2 or max(pool.together) > 1, "none of twenty jobs of the same frames were together"
    assert buffer_pool.ranges.used_bytes == 0
    buffer_pool.close()


def run_until_sent(front: Front, listeners: FakeListeners, stops: FakeStops, *, replies: int) -> None:
    """Run it until it has sent so many replies, and is then told to stop."""
    wait, began_s = listeners.wait, time.monotonic()

    def watched(timeout_s: float, *, gather_s: float = 0.0) -> None:
        assert time.monotonic() < began_s + PATIENCE_S, front
        stops.count = int(listeners.sent == replies)
        wait(timeout_s, gather_s=gather_s)

    listeners.wait = watched  # type: ignore[method-assign]
    front.run()


def test_a_bug_that_a_call_finds_costs_its_sender_the_connection_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listeners, pool, stops = FakeListeners(20, full_every=1000), FakePool(room=5), FakeStops()
    buffer_pool, admission = BufferPool(64 * 8192), Asked(Limits(requests=100), RunShares())
    front = front_of(listeners, pool, stops, buffer_pool=buffer_pool, admission=admission)
    run_until_sent(front, listeners, stops, replies=16)
    errors = [reply for reply in map(unpack_reply, listeners.headers) if isinstance(reply, ErrorReply)]
    assert sorted(error.attempt for error in errors) == [0, 5, 10, 15]
    assert {error.code for error in errors} == {"server_lost"}
    assert listeners.cuts == [CLIENT] * 4
    assert sum("is a bug" in record.message and bool(record.exc_info) for record in caplog.records) == 4
    buffer_pool.close()


def test_no_request_is_kept_longer_than_the_server_allows() -> None:
    """They ask for 60 s."""
    listeners, pool, stops = FakeListeners(4, full_every=1000), FakePool(room=5), FakeStops()
    buffer_pool, admission = BufferPool(64 * 8192), Asked(Limits(requests=100), RunShares())
    front = front_of(listeners, pool, stops, buffer_pool=buffer_pool, admission=admission, deadline_s=7.0)
    run_until_sent(front, listeners, stops, replies=3)
    assert admission.due_s == pytest.approx([7.0] * 4)
    buffer_pool.close()


@pytest.mark.parametrize("room", [1, 5])
def test_calls_of_a_client_that_is_gone_are_dropped_beside_its_earlier_ones(room: int) -> None:
    """The listener has heard that it left while some of its calls still wait to be read."""
    listeners, pool, stops = FakeListeners(20, full_every=1000), FakePool(room=room), FakeStops()
    listeners.principal = lambda client: client.decode() if len(listeners.calls) >= 12 else ""  # type: ignore[method-assign]
    buffer_pool = BufferPool(64 * 8192)
    front = front_of(listeners, pool, stops, buffer_pool=buffer_pool)
    run_until_sent(front, listeners, stops, replies=8)
    assert (listeners.sent, len(listeners.calls), front.in_flight) == (8, 0, 0)
    buffer_pool.close()
