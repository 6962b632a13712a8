"""What a fleet needs of whoever runs its servers, and what it is told of them. Knows no engine and no clips.

Servers announce themselves in a registry, from which trainers have them: here is decided how many there are, and where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from framefeed.errors import BadInput

MOST_SERVERS = 4096
_LOCAL, _FAR = "local-", "decode-"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """What every server of a fleet is started with: the Python that has framefeed on each box, the folder of videos as
    each box sees it, the registry that trainers look at, and further options of `framefeed serve`.
    """

    python: str
    root: Path
    registry: Path
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.root.is_absolute() or not self.registry.is_absolute():
            raise BadInput(f"fleet: root {self.root} and --registry {self.registry} must be absolute on every box")
        for name in ("--registry", "--sockets"):
            if any(option.partition("=")[0] == name for option in self.options):
                raise BadInput(f"fleet: {name} is the fleet's own; wanted other options of `framefeed serve`")

    def command(self, socket: int) -> tuple[str, ...]:
        """The command of a server on one CPU socket."""
        fixed = ("--registry", str(self.registry), "--sockets", str(socket))
        return (self.python, "-m", "framefeed.cli", "serve", str(self.root), *fixed, *self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedServer:
    """One server of the fleet: `state` is pending (no box has room), starting, up, draining, drained or lost; `node`
    the box's address and `pid` its process there, as far as they are known. One that was drained by hand keeps its
    place, and nothing runs there until it is freed.
    """

    name: str
    state: str
    node: str = ""
    socket: int = -1
    pid: int = 0


class Plane(Protocol):
    """Starts, restarts, places and ends servers on boxes."""

    def servers(self) -> list[PlacedServer]:
        """All that are wanted, by name. Blocks for seconds at most."""

    def start(self, name: str, spec: FleetSpec, *, local: bool) -> None:
        """Have one more server, on the trainer's machine if `local`; it is placed when a box has room."""

    def drain(self, name: str, *, limit_s: float) -> int | None:
        """End one in good order and free its place: its exit code, None for one that had no process. Blocks until it
        has ended, `limit_s` at most, then it is killed.
        """


def is_local(server: PlacedServer) -> bool:
    """Whether it was started for the trainer's machine."""
    return server.name.startswith(_LOCAL)


def serving(servers: Sequence[PlacedServer]) -> list[PlacedServer]:
    """Those that serve or will: neither draining nor drained."""
    return [server for server in servers if server.state not in ("draining", "drained")]


def next_names(servers: Sequence[PlacedServer], count: int, *, local: bool) -> list[str]:
    """Free names for `count` more servers (none for less than one), the lowest numbers first."""
    taken = {server.name for server in servers}
    prefix = _LOCAL if local else _FAR
    names = (f"{prefix}{number}" for number in range(len(taken) + max(count, 0)))
    return [name for name in names if name not in taken][: max(count, 0)]


def to_drain(servers: Sequence[PlacedServer], count: int) -> list[str]:
    """The names of `count` servers to end: those that do not serve first, then those that came last."""
    order = sorted(servers, key=lambda server: (server.state == "up", -_number(server.name)))
    return [server.name for server in order[: max(count, 0)]]


def _number(name: str) -> int:
    digits = name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0
