"""The server's metrics: one registry, written by the front, consistent at every scrape. It knows no HTTP.

Names follow Prometheus practice; the conservation law holds in every rendering:
requests_received = sum(requests) + sum(replies_dropped) + requests_in_flight.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct
from prometheus_client import (
    CollectorRegistry,
    Enum,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from decode_server.clips.read_watch import FAULTS, OPERATIONS, RETRY
from decode_server.service.lifecycle import State
from decode_server.service.tallies import Count, TalliedHistogram, Tally
from decode_server.service.workers.worker_messages import Effort
from framefeed.clip import STAGES
from framefeed.errors import WIRE_ERRORS

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
_TURN_LIMIT_S = 2.0
RUN_LABELS, OTHER_RUNS = 64, "other"
DROP_REASONS = ("client_gone", "unread", "internal")
USUAL_CODECS = ("h264", "hevc")  # of chunks; others are counted from their first clip on
WASTE_REASONS = ("late", "cancelled", "client_gone", "hung")
_MOST_CODECS, _OTHER_CODEC = 64, "other"  # a worker may say anything of its clips


class Gauges(Struct, frozen=True, kw_only=True, eq=False):  # a dataclass takes ten times as long to make, each turn
    """What is so at the end of a turn of the front's loop, from the owners of the counts."""

    state: State
    in_flight: int
    queued: int
    queue_full: bool
    workers: int
    workers_busy: int
    short_of_buffers: bool
    clients_blocked: bool
    front_busy_s: float
    front_longest_s: float
    clients: Callable[[], list[tuple[str, int, int]]]
    stuck_reads: int
    zombies: int
    buffer_pool_used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a server is given: beside each depth stands its limit. Threads are by CPU socket."""

    queue: int
    workers: int
    buffer_pool_bytes: int
    threads: dict[int, int]


class Metrics:
    """All counts of one server. Hold `lock` over a turn of the loop: then no scrape sees half of it."""

    def __init__(self, capacity: Capacity) -> None:
        self.lock = threading.Lock()
        disable_created_metrics()  # type: ignore[no-untyped-call]  # half of the text otherwise
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        self._make_request_counts(r)
        self._make_time_counts(r)
        self._make_storage_counts(r)
        self._make_worker_counts(r)
        self._state = Enum(
            "framefeed_server_state", "What the server is.", states=[state.value for state in State], registry=r
        )
        self._build = Gauge(
            "framefeed_build_info", "What makes the bytes; always 1.", ["fingerprint", "dataset", "version"], registry=r
        )
        _set_limits(capacity, registry=r)
        self._observed: tuple[float, Gauges] | None = None
        self._by_codec: dict[tuple[int, str], Count] = {}
        self._by_outcome = {outcome: self._requests.labels(outcome) for outcome in ("clip", "server", *WIRE_ERRORS)}
        for reason in DROP_REASONS:
            self._dropped.labels(reason)
        for reason in WASTE_REASONS:
            self._wasted.labels(reason)
        for kind in FAULTS:
            self._faults.labels(kind)
        for socket in capacity.threads:
            for codec in USUAL_CODECS:
                self._by_codec[socket, codec] = self._clips.labels(str(socket), codec)
        self._by_socket = {socket: self._thread_busy.labels(str(socket)) for socket in capacity.threads}
        self._by_operation = {operation: self._reads.labels(operation) for operation in OPERATIONS}
        self._lookups = self._indices.labels("memory"), self._indices.labels("storage")
        self._by_stage = {stage: self._stages.labels(stage) for stage in STAGES}

    def _make_request_counts(self, r: CollectorRegistry) -> None:
        n = "framefeed_server_"
        self._received = Tally(n + "requests_received_total", "Messages that came from clients.", registry=r).labels()
        self._requests = Tally(
            n + "requests_total", "Requests replied to: clip, server, or the error's code.", ["outcome"], registry=r
        )
        self._dropped = Tally(
            n + "replies_dropped_total", "Requests whose reply found no reader, by reason.", ["reason"], registry=r
        )
        self._in_flight = Gauge(n + "requests_in_flight", "Requests received and not yet replied to.", registry=r)
        self._together = Tally(n + "clips_together_total", "Clips decoded together with others.", registry=r).labels()
        self._clips = Tally(n + "clips_total", "Clips decoded.", ["socket", "codec"], registry=r)
        self._stages = TalliedHistogram(
            n + "stage_duration_seconds",
            "Time of a clip's stages: queue, read, decode, scale.",
            "stage",
            buckets=_BUCKETS_S,
            registry=r,
        )
        self._wasted = Tally(
            n + "wasted_decodes_total", "Decodes of clips that nobody wanted any more, by why.", ["reason"], registry=r
        )
        self._by_run = Tally(
            n + "run_requests_total", "Requests for clips that were admitted, by run.", ["run"], registry=r
        )
        self._runs: dict[str, Count] = {}
        self._read = Tally(n + "read_bytes_total", "Bytes of video read for clips.", registry=r).labels()
        self._sent = Tally(n + "sent_bytes_total", "Bytes of replies handed to the transport.", registry=r).labels()

    def _make_time_counts(self, r: CollectorRegistry) -> None:
        n = "framefeed_server_"
        self._queued = Gauge(n + "queue_depth_requests", "Requests waiting for a worker.", registry=r)
        self._empty = Tally(
            n + "queue_empty_seconds_total", "Time with no request waiting and a worker idle.", registry=r
        ).labels()
        self._full = Tally(n + "queue_full_seconds_total", "Time with the queue at its limit.", registry=r).labels()
        self._short = Tally(
            n + "buffer_short_seconds_total", "Time in which a request waited for reply memory alone.", registry=r
        ).labels()
        self._blocked = Tally(
            n + "client_blocked_seconds_total",
            "Time in which all that waited was for clients that had clips to read first.",
            registry=r,
        ).labels()
        self._front = Tally(n + "front_busy_seconds_total", "Time that the front's thread worked.", registry=r).labels()
        self._front_seen_s = 0.0
        self._longest = Gauge(
            n + "front_longest_turn_seconds", "The longest turn of the front's thread since the start.", registry=r
        )
        self._thread_busy = Tally(
            n + "thread_busy_seconds_total", "Time that decoding threads worked.", ["socket"], registry=r
        )

    def _make_storage_counts(self, r: CollectorRegistry) -> None:
        n = "framefeed_server_"
        self._reads = TalliedHistogram(
            n + "storage_duration_seconds",
            "Time of operations of storage.",
            "operation",
            buckets=_BUCKETS_S,
            registry=r,
        )
        self._indices = Tally(
            n + "index_lookups_total",
            "Packet indices looked for, by whether they were in memory.",
            ["found"],
            registry=r,
        )
        self._faults = Tally(
            n + "storage_faults_total", "Reads of storage that went wrong, by kind.", ["kind"], registry=r
        )
        self._retries = Tally(n + "storage_retries_total", "Reads made again after a fault.", registry=r).labels()

    def _make_worker_counts(self, r: CollectorRegistry) -> None:
        n = "framefeed_server_"
        self._clients = Gauge(n + "clients", "Connections or streams of clients.", ["address"], registry=r)
        self._clients_limit = Gauge(n + "clients_limit", "How many there may be.", ["address"], registry=r)
        self._workers = Gauge(n + "workers", "Worker processes that can take requests.", registry=r)
        self._busy = Gauge(n + "workers_busy", "Worker processes that have a request.", registry=r)
        self._gateway_restarts = Tally(
            n + "gateway_restarts_total", "Processes of an address that ended and were replaced.", registry=r
        ).labels()
        self._restarts = Tally(n + "worker_restarts_total", "Workers that ended too early.", registry=r).labels()
        self._stuck = Gauge(n + "stuck_reads", "Decoding threads in a read that does not return.", registry=r)
        self._zombies = Gauge(n + "worker_zombies", "Killed workers that a hung read keeps.", registry=r)
        self._buffer_pool = Gauge(n + "buffer_pool_used_bytes", "Reply memory in use.", registry=r)

    def received(self) -> None:
        """A message came from a client."""
        self._received.inc()

    def replied(self, outcome: str, sent_bytes: int) -> None:
        """A reply was handed to the transport."""
        child = self._by_outcome.get(outcome)
        (child or self._requests.labels(outcome)).inc()
        self._sent.inc(sent_bytes)

    def dropped(self, reason: str) -> None:
        """A request ends without a reply, for one of DROP_REASONS."""
        self._dropped.labels(reason).inc()

    def wasted(self, reason: str) -> None:
        """A clip was decoded, or begun, in vain, for one of WASTE_REASONS."""
        self._wasted.labels(reason).inc()

    def started(self, *, together: int) -> None:
        """So many jobs went to one thread."""
        if together > 1:
            self._together.inc(together)

    def decoded(self, *, socket: int, codec: str, read_bytes: int, stage_s: dict[str, float]) -> None:
        """A worker made a clip, whether or not anyone still wanted it."""
        clips = self._by_codec.get((socket, codec))
        if clips is None and len(self._by_codec) >= _MOST_CODECS:
            clips = self._by_codec.get((socket, codec := _OTHER_CODEC))
        if clips is None:
            clips = self._by_codec[socket, codec] = self._clips.labels(str(socket), codec)
        clips.inc()
        self._read.inc(read_bytes)
        for stage, duration_s in stage_s.items():
            self._by_stage[stage].observe(duration_s)

    def storage_met(self, counts: dict[str, int]) -> None:
        """What a worker's reads went through, as ReadWatch.take gives it."""
        for kind, times in counts.items():
            (self._retries if kind == RETRY else self._faults.labels(kind)).inc(times)

    def asked(self, run: str) -> None:
        """A run's request was admitted."""
        if run not in self._runs and len(self._runs) >= RUN_LABELS:
            run = OTHER_RUNS
        asked = self._runs.get(run)
        if asked is None:
            asked = self._runs[run] = self._by_run.labels(run)
        asked.inc()

    def worked(self, effort: Effort, *, socket: int) -> None:
        """A thread of a CPU socket worked on a request."""
        self._by_socket[socket].inc(effort.busy_s)
        for operation, took_s in effort.reads_s:
            self._by_operation[operation].observe(took_s)
        for found, times in zip(self._lookups, effort.lookups, strict=True):
            if times:
                found.inc(times)
        self.storage_met(effort.storage)

    def restarted(self, times: int) -> None:
        """Workers ended."""
        if times:
            self._restarts.inc(times)

    def gateway_restarted(self) -> None:
        """A gateway ended."""
        self._gateway_restarts.inc()

    def built_with(self, fingerprint: str, dataset: str, version: str) -> None:
        """The workers' fingerprint and what they serve are known."""
        self._build.labels(fingerprint, dataset, version).set(1)

    def observe(self, gauges: Gauges, *, now_s: float) -> None:
        """Note the gauges for who renders them, and charge the time since the last call to what they were in it."""
        before_s, before = self._observed or (now_s, gauges)
        self._observed = (now_s, gauges)
        if before.queue_full:
            self._full.inc(now_s - before_s)
        elif not before.queued and before.workers_busy < before.workers:
            self._empty.inc(now_s - before_s)
        if before.short_of_buffers:
            self._short.inc(now_s - before_s)
        if before.clients_blocked:
            self._blocked.inc(now_s - before_s)

    def render(self) -> bytes:
        """The registry in Prometheus' text format, between two turns of the loop.

        Waits for a turn to end, at most 2 s. Raises TimeoutError when the loop is stuck in one.
        """
        if not self.lock.acquire(timeout=_TURN_LIMIT_S):
            raise TimeoutError(f"the loop has been in one turn for {_TURN_LIMIT_S:g} s")
        try:
            if self._observed is not None:
                self._set(self._observed[1])
            return generate_latest(self.registry)
        finally:
            self.lock.release()

    def _set(self, gauges: Gauges) -> None:
        self._in_flight.set(gauges.in_flight)
        self._queued.set(gauges.queued)
        self._workers.set(gauges.workers)
        self._busy.set(gauges.workers_busy)
        self._stuck.set(gauges.stuck_reads)
        self._zombies.set(gauges.zombies)
        self._buffer_pool.set(gauges.buffer_pool_used_bytes)
        self._front.inc(gauges.front_busy_s - self._front_seen_s)
        self._front_seen_s = gauges.front_busy_s
        self._longest.set(gauges.front_longest_s)
        for address, there, most in gauges.clients():
            self._clients.labels(address).set(there)
            self._clients_limit.labels(address).set(most)
        self._state.state(gauges.state.value)


def _set_limits(capacity: Capacity, *, registry: CollectorRegistry) -> None:
    n = "framefeed_server_"
    for name, text, value in (
        ("queue_limit_requests", "Requests that may wait beside the first one of each client.", capacity.queue),
        ("workers_wanted", "Worker processes that there should be.", capacity.workers),
        ("buffer_pool_bytes", "Reply memory.", capacity.buffer_pool_bytes),
    ):
        Gauge(n + name, text, registry=registry).set(value)
    threads = Gauge(n + "threads", "Decoding threads that there should be.", ["socket"], registry=registry)
    for socket, count in capacity.threads.items():
        threads.labels(str(socket)).set(count)
