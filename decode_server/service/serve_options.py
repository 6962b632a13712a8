"""The options of `framefeed serve`. They know no process that is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from decode_server.clips.clip_cost import MAX_DECODE_MPX, MAX_READ_MIB
from decode_server.service.listeners.security import SecurityOptions
from decode_server.service.listeners.zmq_listener import CONNECTIONS, IO_THREADS
from decode_server.service.membership.registry import LEASE_S
from decode_server.service.workers.domains import FRONT_THREADS
from framefeed.errors import BadInput
from framefeed.grace import DRAIN_S, MAX_DEADLINE_S, ONE_DECODE_S, outlasts
from framefeed.server_entry import MAX_LEASE_S
from framefeed.zmtp import MAX_IO_THREADS

DEFAULT_BIND = "tcp://127.0.0.1:5555"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Every option of the verb `serve`, checked one by one; what they mean together is found where they are used."""

    FIRST_OPTIONS: ClassVar[tuple[str, ...]] = (
        "--bind",
        "--public",
        "--insecure",
        "--registry",
        "--metrics-port",
        "--index",
        "--workers",
        "--threads",
        "--sockets",
        "--buffer-pool-mib",
        "--drain-s",
    )

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
    follow_links: bool = False
    """Read what links in the root lead to outside of it, of a root that was indexed with --follow-links."""
    workers: int | None = None
    """Worker processes on each CPU socket. Default: one for each --threads of the CPUs this process may use there."""
    threads: int = 2
    """Decoding threads of a worker."""
    fronts: int | None = None
    """Fronts, each a process with its own CPUs, workers, port and part of the buffer pool. The first listens where
    --bind and --metrics-port say, the next a port above, or at @NAME-1, and so on. Default: one for each NUMA node, L3
    cache or --front-threads, whichever is smallest; 1 where there are few CPUs."""
    front_threads: int = FRONT_THREADS
    """Decoding threads that one front is for, where --fronts is not given."""
    sockets: str = ""
    """CPU sockets to use, e.g. '0' or '0,1'. Default: all that this process may run on."""
    buffer_pool_mib: int | None = None
    """Memory for clips on their way out, in MiB: the bound on what slow readers can hold. Default: 16 for each decoding
    thread, at least 256, and no more than an eighth of the machine's."""
    queue: int | None = None
    """Requests that may wait beside the first one of each client; more are told at once to try another server. Default:
    16 for each decoding thread, at least 256."""
    max_deadline_s: float = MAX_DEADLINE_S
    """A request is kept in the queue and decoded for no longer than this, whatever deadline its client sends."""
    max_read_mib: int = MAX_READ_MIB
    """A clip that would read more than this, packets and their indices, is refused before a byte of it is read."""
    max_decode_mpx: int = MAX_DECODE_MPX
    """A clip for which more millions of pixels would be decoded, frames before the wanted ones included, is refused
    before it is read."""
    run_share: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=WEIGHT: what a run gets of the decoding time relative to others, which have 1. Give it again for more."""
    drain_s: float = DRAIN_S
    """On the first signal, finish what is in flight for at most this long, which should be --max-deadline-s and
    the time of a decode. A second signal stops at once."""
    hang_s: float = 30.0
    """A worker is killed and replaced when a decode is this long past its deadline, or when all threads that decode, or
    half of those that read ahead, were stuck in reads for this long; and so is one of several fronts whose loop stood
    for this long, and 5 s at least."""
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
            "fronts": 1,
            "front_threads": 1,
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

    @property
    def short_drain(self) -> str:
        """What is wrong with a drain that cannot save all requests, or "". One of 0 is meant to save none."""
        if not self.drain_s or outlasts(deadline_s=self.max_deadline_s, drain_s=self.drain_s):
            return ""
        return (
            f"--drain-s is {self.drain_s:g}, wanted more than --max-deadline-s {self.max_deadline_s:g} and "
            f"{ONE_DECODE_S:g} s for a decode: a stop may refuse requests"
        )
