"""The verbs `fleet up`, `scale`, `drain` and `status`: decode servers on the boxes of a Ray cluster.

Trainers need none of it: they have the servers from the registry. Without Ray, deploy/systemd starts them box by box.
"""

from __future__ import annotations

import dataclasses
import logging
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import tyro
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from rich.console import Console
from rich.table import Table

from framefeed.cli.fleet.autoscaler import Autoscaler, reconcile
from framefeed.cli.fleet.plane import MOST_SERVERS, FleetSpec, PlacedServer, serving
from framefeed.cli.fleet.policy import CALM_S, FleetLimits
from framefeed.cli.fleet.signals import signals_of
from framefeed.cli.log_lines import log_to_stderr
from framefeed.cli.stop_signals import StopSignals
from framefeed.cli.top.history import History
from framefeed.cli.top.pages import Pages
from framefeed.errors import BadInput, FramefeedError
from framefeed.grace import DRAIN_S
from framefeed.name_lookup import connect_to
from framefeed.page_server import Page, PageServer

if TYPE_CHECKING:
    from framefeed.cli.fleet.ray_plane import RayPlane

log = logging.getLogger("framefeed.fleet")

RAY = "auto"
_PAGE_S = 2.0
_REACH_S = 5.0


@contextmanager
def connected(address: str) -> Iterator[RayPlane]:
    """The cluster. Raises BadInput without Ray, FramefeedError without a cluster."""
    try:
        from framefeed.cli.fleet.ray_plane import RayPlane  # noqa: PLC0415  # an extra brings what it imports
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        hint = "pip install 'framefeed[ray]'; without it deploy/systemd/framefeed-serve.service starts servers"
        raise BadInput(f"a fleet needs the package 'ray': {hint}") from None
    check_reachable(address)
    with RayPlane(address) as plane:
        yield plane


def check_reachable(address: str) -> None:
    """Raises FramefeedError if nobody listens at a HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "//" in address or not host or not port.isdigit():
        return
    try:
        connect_to(host.strip("[]"), int(port), limit_s=_REACH_S).close()
    except (OSError, OverflowError) as error:
        raise FramefeedError(f"--ray {address}: no cluster there: {error}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetUp:
    """Start decode servers on the boxes of a Ray cluster. With --watch keep as many as a run needs, until SIGTERM or
    Ctrl-C. Servers stay when this ends: `fleet scale 0` ends them."""

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of videos, as every box sees it."""
    registry: Path
    """Folder that trainers look at, as every box sees it."""
    ray: str = RAY
    """The cluster: HOST:PORT of its head, or auto for the one of this machine."""
    servers: int = 1
    """So many to begin with, and without --watch for good."""
    least: int = 1
    """With --watch never fewer."""
    most: int = 8
    """Nor more."""
    local: int = 0
    """The first so many are for the trainer's machine, which was started with the resource framefeed_local."""
    watch: tuple[str, ...] = ()
    """Metrics pages of the trainer's ranks, HOST:PORT: what they wait for decides how many servers are wanted."""
    every_s: float = 5.0
    """Decide so often."""
    calm_s: float = CALM_S
    """Give servers back when fewer were enough for so long."""
    drain_s: float = DRAIN_S
    """A server that is given back has so long to finish."""
    metrics_port: int = 9557
    """Port of /metrics and /events; 0 picks a free one."""
    metrics_host: str = "127.0.0.1"
    """Address of these; they have no authentication, so make them public only in a private network."""
    python: str = sys.executable
    """The Python that has framefeed, on every box."""
    serve: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of `framefeed serve` for every server, such as --serve=--public. Give it again for each word."""

    def __post_init__(self) -> None:
        if not 0 <= self.servers <= MOST_SERVERS:
            raise BadInput(f"--servers is {self.servers}, wanted 0 to {MOST_SERVERS}")
        for name, least in (("every_s", 0.1), ("drain_s", 0.0)):
            if not least <= getattr(self, name) <= 3600:
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name):g}, wanted {least:g} to 3600")
        if not 0 <= self.metrics_port < 1 << 16:
            raise BadInput(f"--metrics-port is {self.metrics_port}, wanted 0 to 65535")

    def run(self) -> None:
        """Start them, and watch. Raises BadInput for options that cannot be used, FramefeedError without a cluster."""
        limits = self._limits()
        spec = FleetSpec(python=self.python, root=self.root, registry=self.registry, options=self.serve)
        log_to_stderr()
        with connected(self.ray) as plane:
            least, most = (limits.least, limits.most) if self.watch else (self.servers, self.servers)
            plane.keep(spec, least=least, most=most)
            have = plane.servers()
            drained = sum(server.state == "drained" for server in have)
            wanted = max(self.servers - drained, len(serving(have))) if self.watch else self.servers
            local = min(self.local, wanted)
            reconcile(plane, spec, have, wanted=wanted, local=local, drain_s=self.drain_s)
            if self.watch:
                self._watch(plane, spec)

    def _limits(self, least: int | None = None, most: int | None = None) -> FleetLimits:
        return FleetLimits(
            least=self.least if least is None else least,
            most=self.most if most is None else most,
            local=self.local,
            calm_s=self.calm_s,
        )

    def _watch(self, plane: RayPlane, spec: FleetSpec) -> None:
        registry = CollectorRegistry()
        scaler = Autoscaler(plane, spec, drain_s=self.drain_s, registry=registry)
        pages = Pages(self.watch, registry=self.registry, limit_s=_PAGE_S)
        page_server = _serve(self.metrics_host, self.metrics_port, get=partial(_page, scaler, registry))
        history = History()
        log.info("decisions are at %s/events, counts at %s/metrics", page_server.url, page_server.url)
        try:
            with StopSignals() as stops:
                while not stops.last:
                    view = history.add(pages.look())
                    try:
                        _, least, most = plane.kept()
                        if most:  # else `fleet scale 0` ended it, and the next one begins it again
                            scaler.turn(self._limits(least, most), signals_of(view.state, at_s=view.at_s))
                    except FramefeedError as error:
                        log.warning("%s; the servers go on by themselves, and are looked at again", error)
                    select.select([stops], [], [], self.every_s)
        finally:
            page_server.close()
            pages.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetScale:
    """Have so many servers; those that are too many are drained.

    Places that `fleet drain` left empty are used again. A `fleet up --watch` that runs keeps to it too.
    """

    count: Annotated[int, tyro.conf.Positional]
    """So many; 0 ends the fleet."""
    ray: str = RAY
    """The cluster, as for fleet up."""
    drain_s: float = DRAIN_S
    """A server that is drained has so long to finish."""

    def run(self) -> None:
        """Scale. Blocks while servers drain. Raises FramefeedError where no fleet is up."""
        if not 0 <= self.count <= MOST_SERVERS:
            raise BadInput(f"is {self.count}, wanted 0 to {MOST_SERVERS}", of="fleet scale", field="count")
        log_to_stderr()
        with connected(self.ray) as plane:
            spec, _, _ = plane.kept()
            plane.keep(spec, least=self.count, most=self.count)
            for server in plane.servers():
                if server.state == "drained":
                    plane.drain(server.name, limit_s=self.drain_s)
            servers = plane.servers()
            local = min(sum(server.name.startswith("local-") for server in servers), self.count)
            reconcile(plane, spec, servers, wanted=self.count, local=local, drain_s=self.drain_s)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetDrain:
    """End one server of the fleet in good order. It tells its trainers, finishes what it has and is gone; its place on
    its box stays empty until `fleet scale`. A `fleet up --watch` that runs wants one fewer from then on, and starts
    another elsewhere only when a rank starves for it."""

    name: Annotated[str, tyro.conf.Positional]
    """As `fleet status` names it."""
    ray: str = RAY
    """The cluster, as for fleet up."""
    drain_s: float = DRAIN_S
    """It has so long to finish."""

    def run(self) -> None:
        """Drain. Blocks until it is gone. Raises FramefeedError for one that is not there, or did not end with 0."""
        with connected(self.ray) as plane:
            code = plane.drain(self.name, limit_s=self.drain_s, stay=True)
        if code != 0:
            raise FramefeedError(f"{self.name} is gone, but not in good order: exit code {code}; its log says why")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetStatus:
    """The servers of the fleet, what each does and where."""

    ray: str = RAY
    """The cluster, as for fleet up."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Print them. Raises FramefeedError without a cluster."""
        with connected(self.ray) as plane:
            servers = plane.servers()
        if self.json:
            print(msgspec.json.format(msgspec.json.encode([dataclasses.asdict(one) for one in servers])).decode())
        else:
            Console().print(_table(servers))


def _table(servers: list[PlacedServer]) -> Table:
    table = Table("server", "state", "box", "socket", "actor's pid", box=None)
    for server in servers:
        where = str(server.socket) if server.socket >= 0 else ""
        table.add_row(server.name, server.state, server.node, where, str(server.pid or ""))
    return table


def _page(scaler: Autoscaler, registry: CollectorRegistry, path: str) -> Page:
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
    if path == "/events":
        return 200, "application/json", msgspec.json.encode([dataclasses.asdict(one) for one in scaler.events])
    return 404, "text/plain; charset=utf-8", b"/metrics or /events\n"


def _serve(host: str, port: int, *, get: Callable[[str], Page]) -> PageServer:
    try:
        return PageServer(host, port, get=get)
    except (OSError, OverflowError) as error:
        raise BadInput(f"--metrics-host {host} --metrics-port {port} cannot be had: {error}") from None
