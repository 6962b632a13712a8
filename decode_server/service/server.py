"""One server: puts a front's parts together, runs it in this process, and closes what it opened.

It knows every part and none of their work; of the box that it may be one of several in, where to say what it is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from decode_server.clips.clip_cost import CostLimits
from decode_server.service.admission import TOGETHER, Admission, Limits
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.credits import Credits
from decode_server.service.front import Front
from decode_server.service.front_beats import FrontBeats
from decode_server.service.front_parts import FrontLimits, Parts
from decode_server.service.health import HealthServer, parse_metrics_host
from decode_server.service.index_watch import IndexWatch
from decode_server.service.lifecycle import Lifecycle
from decode_server.service.listeners.endpoint import Endpoint, parse_bind
from decode_server.service.listeners.gateway.gateway_listener import GatewayListener
from decode_server.service.listeners.gateway.gateway_process import GatewayEvents
from decode_server.service.listeners.grpc_listener import GrpcListener
from decode_server.service.listeners.listener import Listener, Listeners
from decode_server.service.listeners.security import ServerCredentials
from decode_server.service.listeners.shm_listener import ShmListener
from decode_server.service.listeners.zmq_listener import ZmqLimits, ZmqListener
from decode_server.service.membership.announcement import Announcement, Identity, Places
from decode_server.service.metrics import Capacity, Metrics
from decode_server.service.private_memory import keep_memory_private
from decode_server.service.process_metrics import ProcessCollector
from decode_server.service.refusals import Refusals
from decode_server.service.run_shares import RunShares, parse_run_shares
from decode_server.service.sandbox_report import SandboxReport
from decode_server.service.serve_options import DEFAULT_BIND, ServeOptions
from decode_server.service.server_sizes import ServerSizes, server_sizes
from decode_server.service.workers.cancel_flags import CancelFlags
from decode_server.service.workers.read_depth import most_tasks
from decode_server.service.workers.sandbox import Sandbox
from decode_server.service.workers.supervisor import ZOMBIES_A_SLOT, Supervisor, WorkerOptions
from decode_server.service.workers.topology import WorkerSlot
from decode_server.service.workers.worker_pool import PoolLimits, WorkerPool
from framefeed.cli.descriptor_limit import raise_descriptor_limit
from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput
from framefeed.mapped_manifest import new_memory
from framefeed.server_entry import ServerEntry
from framefeed.show_value import one_line
from framefeed.wire import MAX_NAME_CHARS

log = logging.getLogger("framefeed.serve")

_MIB = 1 << 20
_FEW_DESCRIPTORS = 1 << 11


class BoxLink(Protocol):
    """The box that this front is one of several in."""

    def listening(self, urls: Sequence[str], metrics_port: int, stops: StopSignals) -> Sequence[Sequence[str]]:
        """Say where this front is reached; returns the URLs of each other front, none once a stop signal came. Blocks
        for a bounded time; raises FramefeedError when that is over.
        """

    def ready(self, entry: ServerEntry) -> None:
        """Say that this front takes requests."""

    def turned(self, at_s: float) -> None:
        """Say when its loop last turned. Never blocks, and may be called from any thread."""


def run_front(
    options: ServeOptions,
    worker_slots: tuple[WorkerSlot, ...],
    *,
    worker_command: tuple[str, ...],
    box: BoxLink | None = None,
    manifest: int | None = None,
) -> None:
    """Serve until a stop signal, with these workers; `worker_command` is what starts one. In the main thread only.

    `manifest` is the descriptor of the memory that the workers hold it in, where other fronts' do, too; it is closed.
    Raises BadInput for options or a root that cannot be used, FramefeedError if it could not end in good order.
    """
    _raise_descriptor_limit()
    endpoints = [parse_bind(bind, public_allowed=options.public) for bind in options.bind or (DEFAULT_BIND,)]
    sandbox_report = _sandbox_report(options, endpoints)  # before secrets are read
    credentials = options.security.read(endpoints)
    sizes = sizes_of(options, len(worker_slots) * options.threads)
    with contextlib.ExitStack() as stack:
        stops = stack.enter_context(StopSignals())
        buffer_pool = stack.enter_context(contextlib.closing(_buffer_pool(sizes, parts=len(worker_slots))))
        metrics, lifecycle = Metrics(_capacity(options, worker_slots, sizes, buffer_pool)), Lifecycle()
        refusals, shares = Refusals(metrics.registry), RunShares(parse_run_shares(options.run_share))
        listen = partial(
            _listen,
            zmq_limits=ZmqLimits(io_threads=options.io_threads, connections=options.connections),
            buffer_pool=buffer_pool,
            lifecycle=lifecycle,
            credentials=credentials,
            events=_gateway_events(metrics, sandbox_report),
            refusals=refusals,
        )
        listening = _listen_at(endpoints, listen, stack)
        urls = [listener.url for listener in listening]
        pool = stack.enter_context(contextlib.closing(_pool(
            options, worker_slots, buffer_pool, server=_server_name(urls[0]),
            worker_command=worker_command, sandbox_report=sandbox_report, manifest=manifest,
        )))  # fmt: skip
        metrics.registry.register(ProcessCollector(pool.pids, _gateways(listening)))
        parts = Parts(
            listeners=Listeners(listening),
            admission=Admission(Limits(requests=sizes.queue), shares),
            credits=Credits(shares.weight, queue=sizes.queue),
            buffer_pool=buffer_pool,
            pool=pool,
            metrics=metrics,
            stops=stops,
            lifecycle=lifecycle,
            refusals=refusals,
            index_watch=stack.enter_context(contextlib.closing(_index_watch(options, pool))),
        )
        announcement = stack.enter_context(
            contextlib.closing(_announcement(options, urls, worker_slots, pool, lifecycle))
        )
        _run(parts, options, announcement, urls, box)


def _front(parts: Parts, options: ServeOptions, announcement: Announcement, box: BoxLink | None) -> Front:
    def on_ready(videos: int) -> None:
        announcement.publish(videos)
        if box is not None:
            box.ready(announcement.entry(1))

    return Front(
        parts,
        server=announcement.server,
        limits=FrontLimits(drain_s=options.drain_s, lease_s=options.hold_s, deadline_s=options.max_deadline_s),
        on_ready=on_ready,
        on_drain=announcement.withdraw,
    )


def _health(options: ServeOptions, front: Front, parts: Parts) -> HealthServer:
    return HealthServer(
        parse_metrics_host(options.metrics_host),
        options.metrics_port,
        status=lambda: front.status,
        metrics=parts.metrics.render,
        refused=partial(parts.refusals.refuse, "http"),
    )


def sizes_of(options: ServeOptions, threads: int) -> ServerSizes:
    """What is given, or wanted for so many threads on this machine."""
    return server_sizes(
        buffer_pool_mib=options.buffer_pool_mib,
        queue=options.queue,
        threads=threads,
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB,
    )


def _capacity(
    options: ServeOptions, worker_slots: Sequence[WorkerSlot], sizes: ServerSizes, buffer_pool: BufferPool
) -> Capacity:
    sockets = Counter(slot.socket for slot in worker_slots)
    return Capacity(
        queue=sizes.queue,
        workers=len(worker_slots),
        buffer_pool_bytes=buffer_pool.ranges.total_bytes,
        threads={socket: workers * options.threads for socket, workers in sockets.items()},
    )


def _run(
    parts: Parts, options: ServeOptions, announcement: Announcement, urls: Sequence[str], box: BoxLink | None
) -> None:
    front = _front(parts, options, announcement, box)
    with contextlib.closing(_health(options, front, parts)) as health:
        announcement.metrics_url = f"{health.url}/metrics"
        parts.metrics_place.learn(health.url, urls)
        if box is not None:
            parts.siblings.learn(box.listening(urls, health.port, parts.stops))
        with _beats(front, box):
            front.run()


def _beats(front: Front, box: BoxLink | None) -> contextlib.AbstractContextManager[object]:
    """What tells the box, if there is one, that the front's loop turns."""
    if box is None:
        return contextlib.nullcontext()
    return contextlib.closing(FrontBeats(box.turned, lambda: front.status.turned_s))


def _listen_at(
    endpoints: Sequence[Endpoint], listen: Callable[[Endpoint], Listener], stack: contextlib.ExitStack
) -> list[Listener]:
    """One for each endpoint, closed by the stack, also those that are there when a later one cannot be had."""
    listening: list[Listener] = []
    for endpoint in endpoints:
        listening.append(listen(endpoint))
        stack.callback(listening[-1].close, linger_s=0)
    return listening


def _raise_descriptor_limit() -> None:
    limit = raise_descriptor_limit()
    if 0 <= limit < _FEW_DESCRIPTORS:
        log.warning("this process may have %d open files only (ulimit -Hn), and each client takes one", limit)


def _announcement(
    options: ServeOptions,
    urls: Sequence[str],
    worker_slots: tuple[WorkerSlot, ...],
    pool: WorkerPool,
    lifecycle: Lifecycle,
) -> Announcement:
    identity = Identity(
        server=_server_name(urls[0]),
        root=options.root,
        urls=urls,
        worker_slots=worker_slots,
        threads=options.threads,
        lifecycle=lifecycle,
        fingerprint=lambda: pool.fingerprint,
        dataset=lambda: pool.dataset,
    )
    places = Places(
        file=options.announce, folder=options.registry, advertise=options.advertise, lease_s=options.lease_s
    )
    return Announcement(identity, places)


def _index_watch(options: ServeOptions, pool: WorkerPool) -> IndexWatch:
    return IndexWatch(options.index or options.root, lambda: pool.dataset if pool.fingerprint else None)


def _listen(
    endpoint: Endpoint,
    *,
    zmq_limits: ZmqLimits,
    buffer_pool: BufferPool,
    lifecycle: Lifecycle,
    credentials: ServerCredentials,
    events: GatewayEvents,
    refusals: Refusals,
) -> Listener:
    """The listener of an endpoint's scheme. Raises BadInput if it cannot listen there."""
    if endpoint.scheme == "shm":
        return ShmListener(endpoint, buffer_pool, refusals=refusals)
    if endpoint.scheme in ("grpc", "grpcs"):
        return GrpcListener(
            endpoint, buffer_pool, lifecycle=lifecycle, credentials=credentials, refusals=refusals, events=events
        )
    return ZmqListener(
        endpoint,
        buffer_pool,
        refusals=refusals,
        curve=credentials.curve,
        limits=zmq_limits,
        events=events,
    )


def _buffer_pool(sizes: ServerSizes, *, parts: int) -> BufferPool:
    try:
        return BufferPool(sizes.buffer_pool_mib * _MIB, parts=parts)
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"--buffer-pool-mib: {sizes.buffer_pool_mib} MiB of shared memory cannot be had ({error})"
        ) from None


def _sandbox_report(options: ServeOptions, endpoints: Sequence[Endpoint]) -> SandboxReport:
    """Of those that have something to say; secrets that are to be read are kept from others from here on."""
    kinds = ["workers"] + ["gateways"] * any(endpoint.scheme != "shm" for endpoint in endpoints)
    if not options.security.secrets_given:
        return SandboxReport(kinds)
    report = SandboxReport(["front", *kinds])
    try:
        keep_memory_private()
    except OSError as error:
        report.came_up("front", "front", Sandbox(missing=(f"not dumpable ({error})",)))
    else:
        report.came_up("front", "front", Sandbox(in_force=("not dumpable",)))
    return report


def _gateway_events(metrics: Metrics, sandbox_report: SandboxReport) -> GatewayEvents:
    return GatewayEvents(came_up=partial(sandbox_report.came_up, "gateways"), restarted=metrics.gateway_restarted)


def _gateways(listening: Sequence[Listener]) -> list[GatewayListener]:
    return [listener for listener in listening if isinstance(listener, GatewayListener)]


def _pool(
    options: ServeOptions,
    worker_slots: tuple[WorkerSlot, ...],
    buffer_pool: BufferPool,
    *,
    server: str,
    worker_command: tuple[str, ...],
    sandbox_report: SandboxReport,
    manifest: int | None,
) -> WorkerPool:
    # Those of a slot that are killed and cannot go keep theirs.
    tasks = (1 + ZOMBIES_A_SLOT) * len(worker_slots) * most_tasks(options.threads) * TOGETHER
    flags = CancelFlags(tasks)
    worker_options = WorkerOptions(
        root=str(options.root),
        index_folder=str(options.index or ""),
        follow_links=options.follow_links,
        server=server,
        threads=options.threads,
        buffer_pool=buffer_pool,
        cancel_flags_fd=flags.fd,
        manifest_fd=new_memory() if manifest is None else manifest,
        read_s=options.read_s,
        costs=CostLimits(read_mib=options.max_read_mib, decode_mpx=options.max_decode_mpx),
        command=worker_command,
        came_up=partial(sandbox_report.came_up, "workers"),
    )
    limits = PoolLimits(threads=options.threads, hang_s=options.hang_s)
    return WorkerPool(Supervisor(worker_slots, worker_options), buffer_pool, flags, limits)


def _server_name(url: str) -> str:
    """The name that replies, logs and errors call this server by: its host and what tells it apart there."""
    name = f"{socket.gethostname()}:{url.rpartition('@' if '@' in url else ':')[2]}"
    return one_line(name, chars=MAX_NAME_CHARS)
