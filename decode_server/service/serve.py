"""`framefeed serve ROOT`: puts a server's parts together, starts it, says where it is, and closes what it opened.

It knows every part and none of their work.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from decode_server.clips.clip_cost import MAX_DECODE_MPX, MAX_READ_MIB, CostLimits
from decode_server.service.admission import MAX_DEADLINE_S, TOGETHER, Admission, Limits
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.credits import Credits
from decode_server.service.front import Front
from decode_server.service.front_parts import FrontLimits, Parts
from decode_server.service.health import HealthServer, parse_metrics_host
from decode_server.service.index_watch import IndexWatch
from decode_server.service.lifecycle import Lifecycle
from decode_server.service.listeners.endpoint import Endpoint, parse_bind
from decode_server.service.listeners.gateway.gateway_listener import GatewayListener
from decode_server.service.listeners.gateway.gateway_process import GatewayEvents
from decode_server.service.listeners.grpc_listener import GrpcListener
from decode_server.service.listeners.listener import Listener, Listeners
from decode_server.service.listeners.security import SecurityOptions, ServerCredentials
from decode_server.service.listeners.shm_listener import ShmListener
from decode_server.service.listeners.zmq_listener import CONNECTIONS, IO_THREADS, ZmqLimits, ZmqListener
from decode_server.service.membership.announcement import Announcement, Identity, Places
from decode_server.service.membership.registry import LEASE_S
from decode_server.service.metrics import Capacity, Metrics
from decode_server.service.private_memory import keep_memory_private
from decode_server.service.process_metrics import ProcessCollector
from decode_server.service.refusals import Refusals
from decode_server.service.run_shares import RunShares, parse_run_shares
from decode_server.service.sandbox_report import SandboxReport
from decode_server.service.workers.cancel_flags import CancelFlags
from decode_server.service.workers.read_depth import most_spare
from decode_server.service.workers.sandbox import Sandbox
from decode_server.service.workers.supervisor import WORKER_COMMAND, ZOMBIES_A_SLOT, Supervisor, WorkerOptions
from decode_server.service.workers.topology import (
    CGROUP,
    SYSFS_CPUS,
    WorkerSlot,
    choose_sockets,
    plan_worker_slots,
    read_sockets,
)
from decode_server.service.workers.worker_pool import PoolLimits, WorkerPool
from framefeed.cgroups import read_cpu_quota
from framefeed.cli.descriptor_limit import raise_descriptor_limit
from framefeed.cli.log_lines import log_to_stderr
from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput
from framefeed.folder_guard import warn_if_exposed
from framefeed.manifest import check_indexed
from framefeed.server_entry import MAX_LEASE_S
from framefeed.show_value import one_line
from framefeed.wire import MAX_NAME_CHARS
from framefeed.zmtp import MAX_IO_THREADS

log = logging.getLogger("framefeed.serve")

DEFAULT_BIND = "tcp://127.0.0.1:5555"
_MIB = 1 << 20
_FEW_DESCRIPTORS = 1 << 11


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve the clips of a folder of videos until SIGTERM or Ctrl-C."""

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of videos, made by 'framefeed chunk' or indexed by 'framefeed index'."""
    bind: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Where to listen: tcp://, grpc:// or grpcs://ADDRESS:PORT (port 0 picks a free one), and for trainers on this host
    shm://@NAME (or shm:///PATH). Give it again for each further address. Default: tcp://127.0.0.1:5555."""
    public: bool = False
    """Allow a --bind that other machines can reach; it needs authentication, or --insecure."""
    metrics_port: int = 9555
    """Port of /metrics, /healthz and /readyz (0 picks a free one)."""
    metrics_host: str = "127.0.0.1"
    """Address of that port; it has no authentication, so '*' or a public one is for private networks."""
    index: Path | None = None
    """Folder of the manifest and packet indices, if they do not lie in the root."""
    workers: int | None = None
    """Worker processes on each CPU socket. Default: one for each --threads of the CPUs this process may use there."""
    threads: int = 2
    """Decoding threads of a worker."""
    sockets: str = ""
    """CPU sockets to use, e.g. '0' or '0,1'. Default: all that this process may run on."""
    buffer_pool_mib: int = 256
    """Memory for clips on their way out, in MiB: the bound on what slow readers can hold."""
    queue: int = 256
    """Requests that may wait beside the first one of each client; more are told at once to try another server."""
    max_deadline_s: float = MAX_DEADLINE_S
    """A request is kept in the queue and decoded for no longer than this, whatever deadline its client sends."""
    max_read_mib: int = MAX_READ_MIB
    """A clip that would read more than this, packets and their indices, is refused before a byte of it is read."""
    max_decode_mpx: int = MAX_DECODE_MPX
    """A clip for which more millions of pixels would be decoded, frames before the wanted ones included, is refused
    before it is read."""
    run_share: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=WEIGHT: what a run gets of the decoding time relative to others, which have 1. Give it again for more."""
    drain_s: float = 30.0
    """On the first signal, finish what is in flight for at most this long. A second signal stops at once."""
    hang_s: float = 30.0
    """A worker is killed and replaced when a decode is this long past its deadline, or all its threads were stuck in
    reads for this long."""
    read_s: float = 5.0
    """A request whose read of storage lasts longer is sent elsewhere; its thread counts as stuck until it returns."""
    hold_s: float = 30.0
    """A client that holds clips and gives none back for so long, as a stopped trainer does, is cut off; when it goes on
    it connects and asks again."""
    announce: Path | None = None
    """Write who this server is as JSON to this file once ready (name, endpoints, metrics_url, pid and more); removed
    when draining."""
    registry: Path | None = None
    """Write the same into this folder, where trainers with --servers registry://FOLDER find it; it may be on NFS."""
    advertise: str = ""
    """Host or address that the endpoints written there name. Default: the one bound, or for 0.0.0.0 the one that leads
    to this machine."""
    lease_s: float = LEASE_S
    """A trainer may take this server for dead when what it wrote was not renewed for so long; it is, nine times."""

    io_threads: int = IO_THREADS
    """Threads that ZeroMQ sends and enciphers in, for each tcp:// address; one enciphers 0.8 GB/s (CURVE);
    a client's connection is one thread's."""
    connections: int = CONNECTIONS
    """Connections to each tcp:// address at once; one address that connects may have half of what the others leave."""

    security: Annotated[SecurityOptions, tyro.conf.arg(name="")] = field(default_factory=SecurityOptions)

    def __post_init__(self) -> None:
        for name in ("read_s", "lease_s", "hold_s", "max_deadline_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name):g}, wanted more than 0")
        if self.lease_s > MAX_LEASE_S:
            raise BadInput(f"--lease-s is {self.lease_s:g}, wanted at most {MAX_LEASE_S:g}")
        least = {
            "workers": 1,
            "threads": 1,
            "buffer_pool_mib": 1,
            "queue": 1,
            "max_read_mib": 1,
            "max_decode_mpx": 1,
            "io_threads": 1,
            "connections": 1,
            "metrics_port": 0,
            "drain_s": 0,
            "hang_s": 0,
        }
        if self.io_threads > MAX_IO_THREADS:
            raise BadInput(f"--io-threads is {self.io_threads}, wanted at most {MAX_IO_THREADS}")
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise BadInput(f"--{name.replace('_', '-')} is {value}, wanted at least {low}")

    def run(self) -> None:
        """Serve until a stop signal. Raises BadInput for options or a root that cannot be used."""
        check_indexed(self.index or self.root)
        log_to_stderr()
        run_server(self)


def run_server(options: Serve, *, worker_command: tuple[str, ...] = WORKER_COMMAND) -> None:
    """Serve until a stop signal; `worker_command` is what starts a worker. In the main thread only.

    Raises BadInput for options or a root that cannot be used, FramefeedError if it could not end in good order.
    """
    _raise_descriptor_limit()
    _warn_of_exposed_folders(options)
    endpoints = [parse_bind(bind, public_allowed=options.public) for bind in options.bind or (DEFAULT_BIND,)]
    sandbox_report = _sandbox_report(options, endpoints)  # before secrets are read
    credentials = options.security.read(endpoints)
    worker_slots = _worker_slots(options)
    with contextlib.ExitStack() as stack:
        stops = stack.enter_context(StopSignals())
        buffer_pool = stack.enter_context(contextlib.closing(_buffer_pool(options)))
        metrics, lifecycle = Metrics(_capacity(options, worker_slots, buffer_pool)), Lifecycle()
        refusals = Refusals(metrics.registry)
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
        server = _server_name(urls[0])
        opened = _pool(
            options, worker_slots, buffer_pool,
            server=server, worker_command=worker_command, sandbox_report=sandbox_report,
        )  # fmt: skip
        pool = stack.enter_context(contextlib.closing(opened))
        metrics.registry.register(ProcessCollector(pool.pids, _gateways(listening)))
        shares = RunShares(parse_run_shares(options.run_share))
        parts = Parts(
            listeners=Listeners(listening),
            admission=Admission(Limits(requests=options.queue), shares),
            credits=Credits(shares.weight, queue=options.queue),
            buffer_pool=buffer_pool,
            pool=pool,
            metrics=metrics,
            stops=stops,
            lifecycle=lifecycle,
            refusals=refusals,
            index_watch=stack.enter_context(contextlib.closing(_index_watch(options, pool))),
        )
        announced = _announcement(options, urls, worker_slots, pool, lifecycle)
        announcement = stack.enter_context(contextlib.closing(announced))
        front = _front(parts, options, server, announcement)
        health = _health(options, front, metrics, partial(refusals.refuse, "http"))
        stack.callback(health.close)
        announcement.metrics_url = f"{health.url}/metrics"
        front.run()


def _listen_at(
    endpoints: Sequence[Endpoint], listen: Callable[[Endpoint], Listener], stack: contextlib.ExitStack
) -> list[Listener]:
    """One for each endpoint, closed by the stack, also those that are there when a later one cannot be had."""
    listening: list[Listener] = []
    for endpoint in endpoints:
        listening.append(listen(endpoint))
        stack.callback(listening[-1].close, linger_s=0)
    return listening


def _health(options: Serve, front: Front, metrics: Metrics, refused: Callable[[str, str], None]) -> HealthServer:
    host, port = parse_metrics_host(options.metrics_host), options.metrics_port
    return HealthServer(host, port, status=lambda: front.status, metrics=metrics.render, refused=refused)


def _warn_of_exposed_folders(options: Serve) -> None:
    warn_if_exposed(options.index or options.root, what="index", log=log)
    if options.registry is not None:
        warn_if_exposed(options.registry, what="--registry", log=log)


def _raise_descriptor_limit() -> None:
    limit = raise_descriptor_limit()
    if 0 <= limit < _FEW_DESCRIPTORS:
        log.warning("this process may have %d open files only (ulimit -Hn), and each client takes one", limit)


def _front(parts: Parts, options: Serve, server: str, announcement: Announcement) -> Front:
    return Front(
        parts,
        server=server,
        limits=FrontLimits(drain_s=options.drain_s, lease_s=options.hold_s, deadline_s=options.max_deadline_s),
        on_ready=announcement.publish,
        on_drain=announcement.withdraw,
    )


def _announcement(
    options: Serve, urls: Sequence[str], worker_slots: tuple[WorkerSlot, ...], pool: WorkerPool, lifecycle: Lifecycle
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


def _index_watch(options: Serve, pool: WorkerPool) -> IndexWatch:
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


def _buffer_pool(options: Serve) -> BufferPool:
    try:
        return BufferPool(options.buffer_pool_mib * _MIB)
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"--buffer-pool-mib: {options.buffer_pool_mib} MiB of shared memory cannot be had ({error})"
        ) from None


def _capacity(options: Serve, worker_slots: Sequence[WorkerSlot], buffer_pool: BufferPool) -> Capacity:
    sockets = Counter(slot.socket for slot in worker_slots)
    return Capacity(
        queue=options.queue,
        workers=len(worker_slots),
        buffer_pool_bytes=buffer_pool.ranges.total_bytes,
        threads={socket: workers * options.threads for socket, workers in sockets.items()},
    )


def _worker_slots(options: Serve) -> tuple[WorkerSlot, ...]:
    allowed = frozenset(os.sched_getaffinity(0))
    sockets = choose_sockets(read_sockets(SYSFS_CPUS, allowed), options.sockets)
    return plan_worker_slots(
        sockets, workers=options.workers, threads=options.threads, quota_cpus=read_cpu_quota(CGROUP)
    )


def _sandbox_report(options: Serve, endpoints: Sequence[Endpoint]) -> SandboxReport:
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
    options: Serve,
    worker_slots: tuple[WorkerSlot, ...],
    buffer_pool: BufferPool,
    *,
    server: str,
    worker_command: tuple[str, ...],
    sandbox_report: SandboxReport,
) -> WorkerPool:
    # Those of a slot that are killed and cannot go keep theirs.
    tasks = (1 + ZOMBIES_A_SLOT) * len(worker_slots) * (options.threads + most_spare(options.threads)) * TOGETHER
    flags = CancelFlags(tasks)
    worker_options = WorkerOptions(
        root=str(options.root),
        index_folder=str(options.index or ""),
        server=server,
        threads=options.threads,
        buffer_pool_fd=buffer_pool.fd,
        cancel_flags_fd=flags.fd,
        read_s=options.read_s,
        costs=CostLimits(read_mib=options.max_read_mib, decode_mpx=options.max_decode_mpx),
        command=worker_command,
        came_up=partial(sandbox_report.came_up, "workers"),
    )
    limits = PoolLimits(threads=options.threads, hang_s=options.hang_s)
    return WorkerPool(Supervisor(worker_slots, worker_options), flags, limits)


def _server_name(url: str) -> str:
    """The name that replies, logs and errors call this server by: its host and what tells it apart there."""
    name = f"{socket.gethostname()}:{url.rpartition('@' if '@' in url else ':')[2]}"
    return one_line(name, chars=MAX_NAME_CHARS)
