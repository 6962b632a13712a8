"""`framefeed serve ROOT`: puts a server's parts together, starts it, says where it is, and closes what it opened.

It knows every part and none of their work.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from decode_server.admission import Admission, Limits
from decode_server.endpoint import Endpoint, parse_bind
from decode_server.front import Front, Parts
from decode_server.health import HealthServer
from decode_server.metrics import Metrics
from decode_server.router import Router
from decode_server.signals import StopSignals
from decode_server.slab import Slab
from decode_server.topology import CGROUP, SYSFS_CPUS, Seat, choose_sockets, plan_seats, read_cpu_quota, read_sockets
from decode_server.worker_pool import WORKER_COMMAND, PoolOptions, WorkerPool
from framefeed.errors import BadInput

log = logging.getLogger("framefeed.serve")

_MIB = 1 << 20
_QUEUED_SLABS = 4  # the clips that wait may need this many times the slab


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve the clips of a folder of videos over ZeroMQ, until SIGTERM or Ctrl-C."""

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of videos, made by 'framefeed chunk' or indexed by 'framefeed index'."""
    bind: str = "tcp://127.0.0.1:5555"
    """Where to listen: tcp://ADDRESS:PORT (port 0 picks a free one) or ipc://@NAME."""
    public: bool = False
    """Allow a --bind that other machines can reach. There is no authentication yet."""
    metrics_port: int = 9555
    """Port of /metrics, /healthz and /readyz on the same address (0 picks a free one)."""
    index: Path | None = None
    """Folder of the manifest and packet indices, if they do not lie in the root."""
    workers: int | None = None
    """Worker processes on each CPU socket. Default: one for each --threads of the CPUs this process may use there."""
    threads: int = 2
    """Decoding threads of a worker."""
    sockets: str = ""
    """CPU sockets to use, e.g. '0' or '0,1'. Default: all that this process may run on."""
    slab_mib: int = 256
    """Memory for clips on their way out, in MiB: the bound on what slow readers can hold."""
    queue: int = 256
    """Requests that may wait; more are told at once to try another server."""
    drain_s: float = 30.0
    """On the first signal, finish what is in flight for at most this long. A second signal stops at once."""
    hang_s: float = 30.0
    """A worker whose decode is this long past its deadline is killed and replaced."""
    announce: Path | None = None
    """Write {server, endpoint, metrics_url, pid} as JSON to this file once ready; removed when draining."""

    def __post_init__(self) -> None:
        least = {"workers": 1, "threads": 1, "slab_mib": 1, "queue": 1, "metrics_port": 0, "drain_s": 0, "hang_s": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise BadInput(f"--{name.replace('_', '-')} is {value}, wanted at least {low}")

    def run(self) -> None:
        """Serve until a stop signal. Raises BadInput for options or a root that cannot be used."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        run_server(self)


def run_server(options: Serve, *, worker_command: tuple[str, ...] = WORKER_COMMAND) -> None:
    """Serve until a stop signal; `worker_command` is what starts a worker. In the main thread only.

    Raises BadInput for options or a root that cannot be used, FramefeedError if it could not end in good order.
    """
    endpoint = parse_bind(options.bind, public_allowed=options.public)
    seats = _seats(options)
    with contextlib.ExitStack() as stack:
        stops = stack.enter_context(StopSignals())
        slab = stack.enter_context(contextlib.closing(_slab(options)))
        router = Router(endpoint)
        stack.callback(router.close, linger_s=0)
        server = _server_name(router.url)
        pool = stack.enter_context(contextlib.closing(_pool(options, seats, slab, server, worker_command)))
        limits = Limits(requests=options.queue, clip_bytes=_QUEUED_SLABS * slab.ranges.total_bytes)
        admission, metrics = Admission(limits), Metrics()
        parts = Parts(router=router, admission=admission, slab=slab, pool=pool, metrics=metrics, stops=stops)
        announcement = stack.enter_context(contextlib.closing(_Announcement(options, router.url, server, seats)))
        front = Front(
            parts,
            server=server,
            drain_s=options.drain_s,
            on_ready=announcement.publish,
            on_drain=announcement.close,
        )
        health = HealthServer(endpoint, options.metrics_port, status=lambda: front.status, metrics=metrics.render)
        stack.callback(health.close)
        announcement.metrics_url = f"{health.url}/metrics"
        _warn_if_public(endpoint)
        front.run()


class _Announcement:
    """What a server says of itself once it is ready, on stdout and in the announce file."""

    def __init__(self, options: Serve, url: str, server: str, seats: tuple[Seat, ...]) -> None:
        self.metrics_url = ""
        self._options = options
        self._url = url
        self._server = server
        self._seats = seats
        self._written = False

    def publish(self, videos: int) -> None:
        """Print the line, then write the file atomically: whoever sees it can connect. Raises BadInput."""
        sockets = ", ".join(str(id) for id in sorted({seat.socket for seat in self._seats}))
        print(
            f"serving {videos} videos of {self._options.root} on {self._url}, metrics {self.metrics_url}, "
            f"workers {len(self._seats)} (threads {self._options.threads}, CPU sockets {sockets})",
            flush=True,
        )
        path = self._options.announce
        if path is None:
            return
        body = {"server": self._server, "endpoint": self._url, "metrics_url": self.metrics_url, "pid": os.getpid()}
        part = path.with_name(path.name + ".part")
        try:
            part.write_text(json.dumps(body) + "\n")
            part.rename(path)
        except OSError as error:
            raise BadInput(f"--announce: {path} cannot be written: {error.strerror}") from None
        self._written = True

    def close(self) -> None:
        """Remove the file: the server takes no more requests. Idempotent."""
        if self._written and self._options.announce is not None:
            with contextlib.suppress(OSError):
                self._options.announce.unlink()
        self._written = False


def _slab(options: Serve) -> Slab:
    try:
        return Slab(options.slab_mib * _MIB)
    except (OSError, OverflowError) as error:
        raise BadInput(f"--slab-mib: {options.slab_mib} MiB of shared memory cannot be had ({error})") from None


def _seats(options: Serve) -> tuple[Seat, ...]:
    allowed = frozenset(os.sched_getaffinity(0))
    sockets = choose_sockets(read_sockets(SYSFS_CPUS, allowed), options.sockets)
    return plan_seats(sockets, workers=options.workers, threads=options.threads, quota_cpus=read_cpu_quota(CGROUP))


def _pool(
    options: Serve, seats: tuple[Seat, ...], slab: Slab, server: str, worker_command: tuple[str, ...]
) -> WorkerPool:
    pool_options = PoolOptions(
        root=str(options.root),
        index_folder=str(options.index or ""),
        server=server,
        threads=options.threads,
        slab_fd=slab.fd,
        hang_s=options.hang_s,
        command=worker_command,
    )
    return WorkerPool(seats, pool_options)


def _server_name(url: str) -> str:
    """The name that replies, logs and errors call this server by: its host and what tells it apart there."""
    return f"{socket.gethostname()}:{url.rpartition(':')[2] if url.startswith('tcp') else url.rpartition('@')[2]}"


def _warn_if_public(endpoint: Endpoint) -> None:
    if endpoint.public:
        log.warning("%s is open to other machines and there is no authentication: use a private network", endpoint.url)
