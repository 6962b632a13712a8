"""The front: one thread that takes requests, has workers decode them, and sees that each gets exactly one reply.

It decides nothing by itself: admission, pool, outbox and lifecycle decide, and it carries their decisions out. It
opens nothing: what it works with is given to it, and closed by whoever gave it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import secrets
import time
from collections.abc import Callable

from decode_server.service.admission import Job
from decode_server.service.dispatcher import Dispatcher
from decode_server.service.drain_notice import DrainNotice
from decode_server.service.front_load import FrontLoad
from decode_server.service.front_parts import FrontLimits, Parts
from decode_server.service.health import Status
from decode_server.service.incoming import name_of, read_call
from decode_server.service.lifecycle import State
from decode_server.service.listeners.listener import ReaderFull, ReaderGone
from decode_server.service.metrics import Gauges
from decode_server.service.outbox import Outbox
from decode_server.service.refusals import QUEUE_REASON
from decode_server.service.replies import Replies, ReplyParts
from decode_server.service.software_version import SOFTWARE_VERSION
from decode_server.service.workers.worker_events import Event, Finished, Hung, Lost, Released, TimedOut
from framefeed.errors import (
    BadRequest,
    Busy,
    Cancelled,
    DeadlineExceeded,
    Draining,
    FramefeedError,
    NotHere,
    ServerLost,
    StorageFault,
)
from framefeed.wire import Call, CancelCall, DecodeCall, DescribeCall, ServerReply, peek_attempt

log = logging.getLogger("framefeed.serve")

_TURN_S = 0.5  # the loop turns at least this often, so /healthz can tell whether it does
_CALLS_PER_TURN = 256
_GATHER_S = 0.02  # no call can begin while all workers are full: those that come are taken in when one is done
_FLUSH_S = 2.0  # for a listener to hand over its last replies


class Front:
    """One server. `run` returns when a drain is complete and raises FramefeedError when it was cut short."""

    def __init__(
        self,
        parts: Parts,
        *,
        server: str,
        limits: FrontLimits,
        on_ready: Callable[[int], None],
        on_drain: Callable[[], None],
    ) -> None:
        self.lifecycle = parts.lifecycle
        self._turned_s = time.monotonic()
        self._listeners, self._admission, self._buffer_pool = parts.listeners, parts.admission, parts.buffer_pool
        self._pool, self._metrics, self._stops = parts.pool, parts.metrics, parts.stops
        self._index_watch = parts.index_watch
        self._credits, self._siblings, self._metrics_place = parts.credits, parts.siblings, parts.metrics_place
        self._outbox = Outbox(parts.listeners, parts.buffer_pool, parts.metrics, lease_s=limits.lease_s)
        self._dispatcher = Dispatcher(
            parts.admission, parts.pool, parts.buffer_pool, self._outbox, metrics=parts.metrics
        )
        self._load = FrontLoad(time.monotonic())
        self._replies = Replies(
            ReplyParts(
                server=server,
                outbox=self._outbox,
                refusals=parts.refusals,
                credits=parts.credits,
                front=self._load,
                queued=parts.admission.__len__,
                slots=self._slots,
                principal=parts.listeners.principal,
            )
        )
        self._server = server
        self._instance = secrets.token_hex(8)
        self._drain_s, self._deadline_s = limits.drain_s, limits.deadline_s
        self._on_ready, self._on_drain = on_ready, on_drain
        self._announced = False
        self._drain_until_s = math.inf
        self._drain_notice = DrainNotice()
        self._unfinished = 0
        self._restarts_seen = 0
        self._ids = itertools.count(1)

    def run(self) -> None:
        """Serve until a stop signal or until the root is indexed again, then drain. Each wait is at most half a second.

        Raises BadInput if the workers refuse the root, FramefeedError if they cannot be started, if a second signal
        forces the stop, if requests were unfinished when the drain's time was up, or if the root was indexed again.
        """
        self._listeners.watch(self._pool.fileno())
        self._listeners.watch(self._stops.fileno())
        while self.lifecycle.state is not State.STOPPED:
            gather_s = 0.0 if self._pool.room else _GATHER_S
            self._listeners.wait(self._until_next_turn_s(), gather_s=gather_s)
            with self._metrics.lock:
                self._load.begin(time.monotonic())
                self._turn(self._load.turn_s)
                self._load.end(time.monotonic())
        self._listeners.close(linger_s=_FLUSH_S)  # a bounded time to send what they hold
        if self._unfinished:
            raise FramefeedError(
                f"drain: {self._unfinished} requests were unfinished after {self._drain_s:g} s; "
                "their clients were told to try another server"
            )
        if self._index_watch.outdated:
            raise FramefeedError(f"{self._index_watch.outdated}; start the server again to serve that")

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
            waited = DeadlineExceeded(f"{job.what} waited in the queue until its time was up")
            self._replies.refuse(job, waited, now_s)
        self._tend_readers(now_s)
        self._dispatcher.dispatch()  # last of all that moves jobs: what tending readers made possible has no event
        self._step_life(now_s)
        self._publish(now_s)

    def _until_next_turn_s(self) -> float:
        now_s = time.monotonic()
        timers = (self._admission.next_due_s, self._outbox.next_timer_s(), self._pool.next_timer_s(now_s))
        wait_s = min(_TURN_S, min(timers) - now_s)
        poll_s = self._dispatcher.poll_s
        return wait_s if poll_s is None else min(wait_s, poll_s)

    def _receive(self, now_s: float) -> bool:
        message = self._listeners.receive()
        if message is None:
            return False
        client, frames = message
        call = read_call(frames)
        if not isinstance(call, CancelCall):  # which has no reply of its own, so it is no request
            self._metrics.received()
        try:
            self._answer(client, call, frames, now_s)
        except Exception:
            self._fail(client, call, now_s)
        return True

    def _answer(self, client: bytes, call: Call | FramefeedError, frames: list[bytes], now_s: float) -> None:
        """Do what a call wants, or refuse it. Work for a client that is gone already would be on nobody's account."""
        principal = self._listeners.principal(client)
        try:
            match call:
                case FramefeedError():
                    raise call
                case DecodeCall() | DescribeCall() if not principal:
                    self._metrics.dropped("client_gone")
                case DecodeCall():
                    self._admit(client, call, frames[0], now_s, principal=principal)
                case CancelCall():
                    self._cancel(client, call.attempt, now_s)
                case DescribeCall():
                    self._credits.seen(client, "", now_s, principal=principal)
                    self._replies.description(client, self._describe(call.attempt, client), now_s)
        except FramefeedError as error:
            self._replies.refuse_call(client, peek_attempt(frames[0]) if frames else 0, error, now_s)

    def _fail(self, client: bytes, call: Call | FramefeedError, now_s: float) -> None:
        """A bug here that a call found: it costs its sender the connection, and nobody else anything."""
        log.exception("a call of client %s failed in a way that is a bug", client.hex()[:32])
        failed = ServerLost("the server failed over this call, which is a bug of its own")
        try:
            self._replies.tell(client, "internal", f"{type(call).__name__} of it failed here")
            if isinstance(call, DecodeCall | DescribeCall):
                self._admission.cancel(client, call.attempt)  # it may have come so far
                self._replies.refuse_call(client, call.attempt, failed, now_s)
            elif isinstance(call, FramefeedError):
                self._metrics.dropped("internal")
            self._listeners.cut(client)
        except Exception:
            log.exception("and so did its refusal")

    def _admit(self, client: bytes, call: DecodeCall, header: bytes, now_s: float, *, principal: str) -> None:
        """Queue the call. Raises the error that refuses it."""
        self._drain_notice.asked(client, now_s)
        request, left_s, clip_bytes = call.request, call.deadline_s, call.request.clip_bytes
        if not math.isfinite(left_s):
            raise BadRequest(f"request: deadline_s is {left_s}, wanted a finite number of seconds")
        if not self._buffer_pool.ranges.fits(clip_bytes):
            room = self._buffer_pool.ranges.total_bytes
            raise NotHere(f"request: the clip would be {clip_bytes} bytes, this server's buffer pool has {room}")
        if self.lifecycle.state is State.STARTING:
            raise Busy("no worker is up yet; try another server, or later")
        if self._index_watch.outdated:
            raise NotHere(f"{self._index_watch.outdated}; this server leaves")
        if call.dataset and self._pool.dataset not in ("", call.dataset):
            raise NotHere(f"the run reads data set {call.dataset}, this server serves {self._pool.dataset}")
        taken_s = max(time.monotonic(), now_s)  # until then it waited for the front, from then on for a worker
        job = Job(
            id=next(self._ids),
            client=client,
            attempt=call.attempt,
            what=name_of(request),
            header=header,
            clip_bytes=clip_bytes,
            received_s=taken_s,
            due_s=now_s + min(left_s, self._deadline_s),
            frames=request.frames_key,
            alone=call.alone,
            run=self._admission.run_name(call.run, principal),
            work_class=call.work_class,
            front_s=taken_s - now_s,
            principal=principal,
        )
        self._credits.seen(client, job.run, now_s, principal=principal)
        refused, error = self._admission.offer(job, now_s=now_s) or (None, None)
        if refused is job and error is not None:
            raise error
        self._credits.asked(client, job.run, now_s, principal=principal)
        self._metrics.asked(job.run)
        if refused is not None and error is not None:
            if refused.principal != principal:
                self._replies.tell(refused.client, QUEUE_REASON, str(error))
            self._replies.refuse(refused, error, now_s)

    def _cancel(self, client: bytes, attempt: int, now_s: float) -> None:
        """Give up a job that its client does not want any more; it may have been answered already."""
        job = self._admission.cancel(client, attempt) or self._pool.cancel(client, attempt)
        if job is not None:
            self._replies.refuse(job, Cancelled(f"{job.what} was cancelled"), now_s)

    def _take_in(self, event: Event, now_s: float) -> None:
        """Turn what happened to a worker's task into a reply, and give its buffer back where it is free."""
        match event:
            case Finished():
                self._finish(event, now_s)
            case TimedOut(job):
                late = DeadlineExceeded(f"{job.what} was not decoded until its time was up")
                self._replies.refuse(job, late, now_s)
            case Hung(job, reason, late):
                self._metrics.storage_met({"hung": 1})
                if not late:
                    self._replies.refuse(job, StorageFault(reason), now_s)
            case Lost(job, reason):
                self._replies.refuse(job, ServerLost(reason), now_s)
            case Released(job, buffer):
                self._admission.ended(job, None)
                self._buffer_pool.ranges.free(buffer)

    def _finish(self, end: Finished, now_s: float) -> None:
        """A worker is done with a job, whether or not it is still wanted."""
        job, done = end.job, end.done
        self._admission.ended(job, done.effort.busy_s)
        self._metrics.worked(done.effort, socket=end.socket)
        if done.outcome == "clip":
            self._credits.decoded(done.effort.busy_s, job.clip_bytes)
            self._metrics.decoded(socket=end.socket, codec=done.codec, read_bytes=done.read_bytes, stage_s=done.stage_s)
        if end.before:
            self._metrics.wasted(end.before)
            self._buffer_pool.ranges.free(end.buffer)
        elif done.outcome == "clip":
            self._replies.clip(job, end.buffer, done, now_s)
        else:
            self._buffer_pool.ranges.free(end.buffer)
            self._replies.failed(job, done, now_s)

    def _tend_readers(self, now_s: float) -> None:
        for client in self._outbox.tend(now_s):
            self._credits.gone(client)
            for job in self._admission.forget(client) + self._pool.forget(client):
                log.debug("client %s is gone, and with it %s", client.hex(), job.what)
                self._metrics.dropped("client_gone")

    def _step_life(self, now_s: float) -> None:
        if self._listeners.has_woken(self._stops.fileno()):
            self._stops.clear()
        if self._stops.count > 1:
            raise FramefeedError(f"stopped at once by a second signal, with {self.in_flight} requests in flight")
        why = self._stops.last if self._stops.count == 1 else self._index_watch.outdated
        if why and self.lifecycle.move(State.DRAINING):
            self._begin_drain(why, now_s)
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
            self._metrics.built_with(self._pool.fingerprint, self._pool.dataset, SOFTWARE_VERSION)
            self._on_ready(self._pool.videos)

    def _begin_drain(self, why: str, now_s: float) -> None:
        log.info("%s: draining, %d requests in flight, at most %g s", why, self.in_flight, self._drain_s)
        self._admission.draining = True
        self._drain_until_s = now_s + self._drain_s
        self._on_drain()
        for client in self._drain_notice.begin(now_s):
            with contextlib.suppress(ReaderFull, ReaderGone):  # the reply to its next request says it too
                description = self._describe(attempt=0, client=client)
                self._listeners.send(client, self._replies.packed(client, description, now_s), None)

    def _continue_drain(self, now_s: float) -> None:
        if now_s >= self._drain_until_s or self._pool.hopeless() is not None:
            over = Draining("server stopped before the clip was decoded; try another")
            unfinished = self._admission.clear() + self._pool.abandon()
            self._unfinished = len(unfinished) + self._outbox.waiting
            for job in unfinished:
                self._replies.refuse(job, over, now_s)
            self.lifecycle.move(State.STOPPED)
        elif not self.in_flight and not self._outbox.in_transit and self._drain_notice.quiet(now_s):
            log.info("drained: every request was answered")
            self.lifecycle.move(State.STOPPED)

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
            short_of_buffers=self._dispatcher.short_of_buffers,
            clients_blocked=self._dispatcher.clients_blocked,
            front_busy_s=self._load.busy_s,
            front_longest_s=self._load.longest_s,
            clients=self._listeners.clients,
        )
        self._metrics.observe(gauges, now_s=now_s)
        if self._pool.restarts != self._restarts_seen:
            self._metrics.restarted(self._pool.restarts - self._restarts_seen)
            self._restarts_seen = self._pool.restarts
        self._turned_s = now_s

    @property
    def status(self) -> Status:
        """What is so now, for any thread."""
        pool, outdated = self._pool, self._index_watch.outdated
        detail = f"{pool.ready} of {pool.size} workers up, {self.in_flight} requests in flight"
        detail += f", {pool.stuck_reads} reads hang" if pool.stuck_reads else ""
        detail += f", {outdated}" if outdated else ""
        detail += f", {pool.zombies} killed workers cannot go" if pool.zombies else ""
        return Status(state=self.lifecycle.state, turned_s=self._turned_s, detail=detail)

    def _slots(self) -> int:
        """Clips that are decoded at a time now: as many as there are threads, and buffers for one client."""
        threads = max(self._pool.ready, 1) * self._pool.capacity // max(self._pool.size, 1)
        fit = self._buffer_pool.ranges.total_bytes // 2 // max(int(self._credits.clip_bytes), 1)
        return max(min(threads, fit), 1)

    def _describe(self, attempt: int, client: bytes) -> ServerReply:
        listener = self._listeners.number(client)
        return ServerReply(
            attempt=attempt,
            server=self._server,
            fingerprint=self._pool.fingerprint,
            videos=self._pool.videos,
            workers=self._pool.capacity,
            state=self.lifecycle.state.value,
            dataset=self._pool.dataset,
            max_clip_bytes=self._buffer_pool.ranges.total_bytes,
            software=SOFTWARE_VERSION,
            instance=self._instance,
            siblings=self._siblings.of(listener),
            metrics_port=self._metrics_place.of(listener),
        )

    def __repr__(self) -> str:
        return f"Front({self._server}, {self.lifecycle.state.value}, {self.in_flight} in flight, {self._pool!r})"
