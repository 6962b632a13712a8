"""The front: one thread that takes requests, has workers decode them, and sees that each gets exactly one reply.

It decides nothing by itself: admission, pool, outbox and lifecycle decide, and it carries their decisions out. It
opens nothing: what it works with is given to it, and closed by whoever gave it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from decode_server.service.admission import MAX_DEADLINE_S, Admission, Job
from decode_server.service.buffer_pool import Buffer, BufferPool
from decode_server.service.drain_notice import DrainNotice
from decode_server.service.health import Status
from decode_server.service.lifecycle import Lifecycle, State
from decode_server.service.listeners.listener import Listeners, ReaderFull, ReaderGone
from decode_server.service.metrics import Gauges, Metrics
from decode_server.service.outbox import Outbox, Outgoing, Pixels
from decode_server.service.refusals import REQUEST_REASONS, Refusals
from decode_server.service.signals import StopSignals
from decode_server.service.workers.worker_events import Event, Finished, Hung, Lost, Released, TimedOut
from decode_server.service.workers.worker_pool import WorkerPool
from framefeed.errors import BadRequest, Busy, DeadlineExceeded, Draining, FramefeedError, ServerLost, StorageFault
from framefeed.request import ClipRequest
from framefeed.wire import (
    Call,
    CancelCall,
    DecodeCall,
    ErrorReply,
    Load,
    Reply,
    ServerReply,
    add_load,
    pack_unsealed,
    peek_attempt,
    unpack_call,
    unpack_reply,
)

log = logging.getLogger("framefeed.serve")

_TURN_S = 0.5  # the loop turns at least this often, so /healthz can tell whether it does
_CALLS_PER_TURN = 256
_GATHER_S = 0.02  # no call can begin while all workers are full: those that come are taken in when one is done
_BUFFER_POLL_S, _BUFFER_POLL_MAX_S = 0.001, 0.02  # how often to ask for buffers back while a clip waits for them
_FLUSH_S = 2.0  # for a listener to hand over its last replies


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a front works with."""

    listeners: Listeners
    admission: Admission
    buffer_pool: BufferPool
    pool: WorkerPool
    metrics: Metrics
    stops: StopSignals
    lifecycle: Lifecycle
    refusals: Refusals


class Front:
    """One server. `run` returns when a drain is complete and raises FramefeedError when it was cut short."""

    def __init__(
        self,
        parts: Parts,
        *,
        server: str,
        drain_s: float,
        on_ready: Callable[[int], None],
        on_drain: Callable[[], None],
    ) -> None:
        self.lifecycle = parts.lifecycle
        self.status = Status(state=State.STARTING, turned_s=time.monotonic(), detail="no turn yet")
        self._listeners, self._admission, self._buffer_pool = parts.listeners, parts.admission, parts.buffer_pool
        self._pool, self._metrics, self._stops = parts.pool, parts.metrics, parts.stops
        self._refusals = parts.refusals
        self._outbox = Outbox(parts.listeners, parts.buffer_pool, parts.metrics)
        self._server = server
        self._drain_s = drain_s
        self._on_ready, self._on_drain = on_ready, on_drain
        self._announced = False
        self._drain_until_s = math.inf
        self._drain_notice = DrainNotice()
        self._unfinished = 0
        self._restarts_seen = 0
        self._short_of_buffers = False
        self._buffer_poll_s = _BUFFER_POLL_S
        self._ids = itertools.count(1)

    def run(self) -> None:
        """Serve until a stop signal, then drain. Each wait is at most half a second.

        Raises BadInput if the workers refuse the root, FramefeedError if they cannot be started, if a second signal
        forces the stop, or if requests were unfinished when the drain's time was up.
        """
        self._listeners.watch(self._pool.fileno())
        self._listeners.watch(self._stops.fileno())
        while self.lifecycle.state is not State.STOPPED:
            gather_s = 0.0 if self._pool.room else _GATHER_S
            self._listeners.wait(self._until_next_turn_s(), gather_s=gather_s)
            with self._metrics.lock:
                self._turn(time.monotonic())
        self._flush()
        if self._unfinished:
            raise FramefeedError(
                f"drain: {self._unfinished} requests were unfinished after {self._drain_s:g} s; "
                "their clients were told to try another server"
            )

    @property
    def in_flight(self) -> int:
        """Requests received and not yet replied to."""
        return len(self._admission) + self._pool.unanswered + self._outbox.waiting

    def _turn(self, now_s: float) -> None:
        for _ in range(_CALLS_PER_TURN):
            if not self._receive(now_s):
                break
        for event in self._pool.poll(now_s):
            self._take_in(event, now_s)
        for job in self._admission.expire(now_s=now_s):
            self._refuse(job, DeadlineExceeded(f"{job.what} waited in the queue until its time was up"), now_s)
        self._tend_readers(now_s)
        self._dispatch()  # last of all that moves jobs: what a reader's tending made possible has no event of its own
        self._step_life(now_s)
        self._publish(now_s)

    def _until_next_turn_s(self) -> float:
        now_s = time.monotonic()
        timers = (self._admission.next_due_s, self._outbox.next_timer_s(), self._pool.next_timer_s(now_s))
        wait_s = min(_TURN_S, min(timers) - now_s)
        return min(wait_s, self._buffer_poll_s) if self._short_of_buffers else wait_s

    def _receive(self, now_s: float) -> bool:
        message = self._listeners.receive()
        if message is None:
            return False
        client, frames = message
        call = _call_of(frames)
        if isinstance(call, CancelCall):
            return True  # it has no reply of its own, so it is no request
        self._metrics.received()
        try:
            if isinstance(call, FramefeedError):
                raise call
            if isinstance(call, DecodeCall):
                self._admit(client, call, frames[0], now_s)
            else:
                self._send(client, "server", self._describe(call.attempt), now_s)
        except FramefeedError as error:
            self._note_refusal(client, error.code, str(error))
            self._send_error(client, peek_attempt(frames[0]) if frames else 0, error, now_s)
        return True

    def _admit(self, client: bytes, call: DecodeCall, header: bytes, now_s: float) -> None:
        """Queue the call. Raises the error that refuses it."""
        self._drain_notice.asked(client, now_s)
        request, left_s = call.request, call.deadline_s
        if not math.isfinite(left_s):
            raise BadRequest(f"request: deadline_s is {left_s}, wanted a finite number of seconds")
        if not self._buffer_pool.ranges.fits(request.clip_bytes):
            room = self._buffer_pool.ranges.total_bytes
            raise BadRequest(
                f"request: the clip would be {request.clip_bytes} bytes, the server's buffer pool has {room}"
            )
        if self.lifecycle.state is State.STARTING:
            raise Busy("no worker is up yet; try another server, or later")
        job = Job(
            id=next(self._ids),
            client=client,
            attempt=call.attempt,
            what=_name(request),
            header=header,
            clip_bytes=request.clip_bytes,
            received_s=now_s,
            due_s=now_s + min(left_s, MAX_DEADLINE_S),
            frames=request.frames_key,
            alone=call.alone,
        )
        refusal = self._admission.offer(job, now_s=now_s)
        if refusal is not None:
            raise refusal

    def _take_in(self, event: Event, now_s: float) -> None:
        """Turn what happened to a worker's task into a reply, and give its buffer back where it is free."""
        match event:
            case Finished(job, buffer, done, socket, late):
                self._metrics.storage_met(done.storage)
                if done.outcome == "clip":
                    self._metrics.decoded(
                        socket=socket, codec=done.codec, read_bytes=done.read_bytes, stage_s=done.stage_s
                    )
                if done.outcome != "clip" or late:
                    self._buffer_pool.ranges.free(buffer)
                if late:
                    return
                reply = Outgoing(client=job.client, outcome=done.outcome, header=add_load(done.reply, self._load()))
                if done.outcome == "clip":
                    pixels = Pixels(buffer=buffer, clip_bytes=job.clip_bytes, due_s=job.due_s)
                    reply = replace(reply, pixels=pixels, late=partial(self._unread, job))
                else:
                    self._note_failure(job, reply)
                self._outbox.put(reply, now_s=now_s)
            case TimedOut(job):
                self._refuse(job, DeadlineExceeded(f"{job.what} was not decoded until its time was up"), now_s)
            case Hung(job, reason, late):
                self._metrics.storage_met({"hung": 1})
                if not late:
                    self._refuse(job, StorageFault(reason), now_s)
            case Lost(job, reason):
                self._refuse(job, ServerLost(reason), now_s)
            case Released(buffer):
                self._buffer_pool.ranges.free(buffer)

    def _dispatch(self) -> None:
        """Start jobs while a worker and the buffer pool have room; the first one in line is never overtaken."""
        self._short_of_buffers = False
        while len(self._admission) and self._pool.room:
            job = self._admission.first(blocked=self._outbox.blocks)
            buffer = self._buffer_pool.ranges.allocate(job.clip_bytes) if job else None
            if job is None or buffer is None:
                self._short_of_buffers = self._outbox.in_transit > 0
                self._buffer_poll_s = min(2 * self._buffer_poll_s, _BUFFER_POLL_MAX_S)
                return
            self._buffer_poll_s = _BUFFER_POLL_S
            together = [(job, buffer), *self._companions(job)]
            for started, _ in together:
                self._admission.take(started)
            self._metrics.started(together=len(together))
            self._pool.start(together)

    def _companions(self, job: Job) -> Iterator[tuple[Job, Buffer]]:
        """Jobs to decode together with this one, and their buffers: no more than leaves every thread its share of the
        queue, and half of the buffer pool to others.
        """
        ranges = self._buffer_pool.ranges
        share = len(self._admission) // self._pool.room
        for companion in self._admission.companions(job)[: max(share - 1, 0)]:
            leaves_half = ranges.used_bytes + companion.clip_bytes <= ranges.total_bytes // 2
            buffer = ranges.allocate(companion.clip_bytes) if leaves_half else None
            if buffer is None:
                return
            yield companion, buffer

    def _tend_readers(self, now_s: float) -> None:
        for client in self._outbox.tend(now_s):
            for job in self._admission.forget(client):
                log.debug("client %s is gone, and with it %s", client.hex(), job.what)
                self._metrics.dropped("client_gone")

    def _step_life(self, now_s: float) -> None:
        self._stops.clear()
        if self._stops.count > 1:
            raise FramefeedError(f"stopped at once by a second signal, with {self.in_flight} requests in flight")
        if self._stops.count == 1 and self.lifecycle.move(State.DRAINING):
            self._begin_drain(now_s)
        if self.lifecycle.state is State.DRAINING:
            self._continue_drain(now_s)
            return
        hopeless = self._pool.hopeless()
        if hopeless is not None:
            raise hopeless
        ready = self._pool.ready > 0
        if self.lifecycle.move(State.READY if ready else State.STARTING):
            log.log(logging.INFO if ready else logging.WARNING, "%s", "ready" if ready else "unready: no worker is up")
        if ready and not self._announced:
            self._announced = True
            self._metrics.built_with(self._pool.fingerprint)
            self._on_ready(self._pool.videos)

    def _begin_drain(self, now_s: float) -> None:
        log.info("%s: draining, %d requests in flight, at most %g s", self._stops.last, self.in_flight, self._drain_s)
        self._admission.draining = True
        self._drain_until_s = now_s + self._drain_s
        self._on_drain()
        notice = self._packed(self._describe(attempt=0))
        for client in self._drain_notice.begin(now_s):
            with contextlib.suppress(ReaderFull, ReaderGone):  # the reply to its next request says it too
                self._listeners.send(client, notice, None)

    def _continue_drain(self, now_s: float) -> None:
        if now_s >= self._drain_until_s or self._pool.hopeless() is not None:
            over = Draining("server stopped before the clip was decoded; try another")
            unfinished = self._admission.clear() + self._pool.abandon()
            self._unfinished = len(unfinished) + self._outbox.waiting
            for job in unfinished:
                self._refuse(job, over, now_s)
            self.lifecycle.move(State.STOPPED)
        elif not self.in_flight and not self._outbox.in_transit and self._drain_notice.quiet(now_s):
            log.info("drained: every request was answered")
            self.lifecycle.move(State.STOPPED)

    def _flush(self) -> None:
        """Give the listeners a bounded time to send what they hold."""
        self._listeners.close(linger_s=_FLUSH_S)

    def _publish(self, now_s: float) -> None:
        gauges = Gauges(
            state=self.lifecycle.state,
            in_flight=self.in_flight,
            queued=len(self._admission),
            queue_full=self._admission.full,
            workers=self._pool.ready,
            workers_busy=self._pool.busy,
            stuck_reads=self._pool.stuck_reads,
            zombies=self._pool.zombies,
            buffer_pool_used_bytes=self._buffer_pool.ranges.used_bytes,
        )
        self._metrics.observe(gauges, now_s=now_s)
        self._metrics.restarted(self._pool.restarts - self._restarts_seen)
        self._restarts_seen = self._pool.restarts
        detail = f"{gauges.workers} of {self._pool.size} workers up, {gauges.in_flight} requests in flight"
        detail += f", {gauges.stuck_reads} reads hang" if gauges.stuck_reads else ""
        detail += f", {gauges.zombies} killed workers cannot go" if gauges.zombies else ""
        self.status = Status(state=gauges.state, turned_s=now_s, detail=detail)

    def _refuse(self, job: Job, error: FramefeedError, now_s: float) -> None:
        self._send_error(job.client, job.attempt, error, now_s)

    def _note_failure(self, job: Job, reply: Outgoing) -> None:
        if reply.outcome in REQUEST_REASONS:
            said = unpack_reply(reply.header)
            self._note_refusal(job.client, reply.outcome, said.message if isinstance(said, ErrorReply) else job.what)

    def _note_refusal(self, client: bytes, code: str, why: str) -> None:
        """Count and log what no server will answer otherwise: a client's mistake, an attack, or broken media."""
        if code in REQUEST_REASONS:
            self._refusals.refuse(code, f"client {client.hex()}", why)

    def _send_error(self, client: bytes, attempt: int, error: FramefeedError, now_s: float) -> None:
        self._outbox.put(self._error(client, attempt, error), now_s=now_s)

    def _unread(self, job: Job) -> Outgoing:
        unread = DeadlineExceeded(f"{job.what} was ready, but not read until its time was up")
        return self._error(job.client, job.attempt, unread)

    def _error(self, client: bytes, attempt: int, error: FramefeedError) -> Outgoing:
        reply = ErrorReply(attempt=attempt, server=self._server, code=error.code, message=str(error))
        return Outgoing(client=client, outcome=error.code, header=self._packed(reply))

    def _send(self, client: bytes, outcome: str, reply: Reply, now_s: float) -> None:
        self._outbox.put(Outgoing(client=client, outcome=outcome, header=self._packed(reply)), now_s=now_s)

    def _packed(self, reply: Reply) -> bytes:
        return add_load(pack_unsealed(reply), self._load())

    def _load(self) -> Load:
        return Load(queued=len(self._admission))

    def _describe(self, attempt: int) -> ServerReply:
        return ServerReply(
            attempt=attempt,
            server=self._server,
            fingerprint=self._pool.fingerprint,
            videos=self._pool.videos,
            workers=self._pool.capacity,
            state=self.lifecycle.state.value,
        )

    def __repr__(self) -> str:
        return f"Front({self._server}, {self.lifecycle.state.value}, {self.in_flight} in flight, {self._pool!r})"


def _call_of(frames: list[bytes]) -> Call | FramefeedError:
    """The call in a message, or what is wrong with it."""
    try:
        if len(frames) != 1:
            raise BadRequest(f"message has {len(frames) or 'no'} frames or more, wanted one: a header")
        return unpack_call(frames[0])
    except FramefeedError as error:
        return error


def _name(request: ClipRequest) -> str:
    return f"{request.video} [{request.start_s:g}, {request.end_s:g}) s"
