"""Servers on the boxes of a Ray cluster: Ray Core places, pins, restarts, lists and ends them, and carries no clip.

A box offers as many `framefeed_socket` as it has CPU sockets (`ray start --resources '{"framefeed_socket": 2}'`), the
trainer's machine `framefeed_local` besides. A server is an actor that asks for one and has a child, `framefeed serve`,
which the kernel ends with it. The only file that imports Ray.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from framefeed.cli.children import Child
from framefeed.cli.fleet.plane import FleetSpec, PlacedServer
from framefeed.errors import FramefeedError

NAMESPACE, PREFIX, RECORD = "framefeed", "framefeed.server.", "framefeed.fleet"
SOCKET, LOCAL, _HEAD = "framefeed_socket", "framefeed_local", "node:__internal_head__"
_ASK_S, _START_S, _TURN_S, _REST_S, _MOST_SOCKETS = 5.0, 60.0, 0.5, 2.0, 64


class ServerActor:
    """One server: claims a CPU socket of its box, runs the server on it and ends with it, to be restarted by Ray.

    One that was drained to stay so holds its place with nothing in it, and ends for good if its box does.
    """

    def __init__(self, name: str, spec: FleetSpec) -> None:
        here = ray.get_runtime_context()
        if here.was_current_actor_reconstructed and name in _held():
            ray.kill(here.current_actor, no_restart=True)
            threading.Event().wait(_START_S)  # it is killed while it waits: no child is started
            os._exit(1)
        self._claim, self._socket = claim_socket()
        log = Path(tempfile.gettempdir()) / f"framefeed-{name}-{os.getpid()}.log"
        self._ended = threading.Event()
        self._draining = False
        self._code: int | None = None
        started = threading.Event()
        self._child: Child | None = None

        def run() -> None:  # by a thread that stays: the kernel ends the child with the thread that started it
            self._child = Child(name, spec.command(self._socket), log=log)
            started.set()
            while (code := self._child.wait(_TURN_S)) is None:
                pass
            self._code = code
            self._ended.set()
            if not self._draining:
                threading.Event().wait(_REST_S)  # one that cannot start is not started without end
                os._exit(1)  # Ray starts it again, here or on another box

        threading.Thread(target=run, name="server", daemon=True).start()
        started.wait(_ASK_S)

    def told(self) -> tuple[str, str, int, int]:
        """(state, box, CPU socket, process id)."""
        live, ended = ("draining", "drained") if self._draining else ("up", "lost")
        state = live if self._code is None else ended
        return state, ray.util.get_node_ip_address(), self._socket, os.getpid()

    def drain(self, limit_s: float) -> int:
        """SIGTERM, and its exit code once it has ended; it is killed after `limit_s`."""
        self._draining = True
        assert self._child is not None
        self._child.terminate()
        if not self._ended.wait(limit_s):
            self._child.kill()
            self._ended.wait(_ASK_S)
        return -9 if self._code is None else self._code


class RecordActor:
    """What the fleet is, for those who come later: its spec, the bounds of its size, and who holds a place drained."""

    def __init__(self) -> None:
        self._kept: tuple[FleetSpec, int, int] | None = None
        self._held: set[str] = set()

    def keep(self, spec: FleetSpec, least: int, most: int) -> None:
        """From now on."""
        self._kept = spec, least, most

    def kept(self) -> tuple[FleetSpec, int, int] | None:
        """None of a fleet that never was up."""
        return self._kept

    def hold(self, name: str, held: bool) -> None:
        """A server of that name holds its place drained, or serves if it is started."""
        (self._held.add if held else self._held.discard)(name)

    def held(self) -> set[str]:
        """The names of those that hold a place drained."""
        return self._held


def _held() -> set[str]:
    """The names of servers that hold a place drained, as the fleet's record has them; none without one."""
    try:
        record = ray.get_actor(RECORD, namespace=NAMESPACE)
        held: set[str] = ray.get(record.held.remote(), timeout=_ASK_S)
    except (ValueError, RayError):
        return set()
    return held


def claim_socket() -> tuple[socket.socket, int]:
    """(what holds it, the number of a CPU socket that no other server of this box's fleet has).

    Held by a name in the box's network that the kernel frees when the process ends. Raises FramefeedError without one.
    """
    for number in range(_MOST_SOCKETS):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0framefeed-fleet-socket-{number}")
        except OSError:
            claim.close()
            continue
        return claim, number
    raise FramefeedError(f"all {_MOST_SOCKETS} CPU sockets of this box have a server")


class RayPlane:
    """A Plane over the cluster at `address`; `with` ends the connection, and the servers stay.

    Until then what is printed goes to stderr: Ray prints by itself which boxes it has lost.
    """

    def __init__(self, address: str) -> None:
        """Raises FramefeedError if there is no cluster."""
        self._printed = contextlib.ExitStack()
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RayError, ValueError, RuntimeError) as error:
            raise FramefeedError(f"--ray {address}: no cluster there: {error}") from None

    def __enter__(self) -> RayPlane:
        self._printed.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
        self._printed.close()

    def servers(self) -> list[PlacedServer]:
        """Each asked what it is; one that does not say so within seconds is pending, or lost with its box. A place that
        is held drained is so wherever its box went, until another box has it: there it ends.
        """
        names = sorted(
            (one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["namespace"] == NAMESPACE),
        )
        ours = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
        asked = {name: self._ask(name, lambda actor: actor.told.remote()) for name in ours}
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ASK_S) if asked else ([], [])
        held = _held()
        return [
            self._placed(name, reply if reply in ready else None, held=name in held) for name, reply in asked.items()
        ]

    def start(self, name: str, spec: FleetSpec, *, local: bool) -> None:
        """A detached actor that is restarted for ever, by whichever box has room."""
        self._hold(name, held=False)
        wanted = {SOCKET: 1.0, LOCAL: 1.0} if local else {SOCKET: 1.0}
        actor = ray.remote(ServerActor).options(
            name=f"{PREFIX}{name}",
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            num_cpus=0,
            resources=wanted,
            max_concurrency=4,
        )
        actor.remote(name, spec)

    def drain(self, name: str, *, limit_s: float, stay: bool = False) -> int | None:
        """As Plane.drain: one that no box has, or whose box is gone, ends at once. With `stay` its place is not freed:
        nothing runs there until it is drained again, without.
        """
        actor = self._actor(name)
        self._hold(name, held=stay)
        code: int | None = None
        try:
            ray.get(actor.told.remote(), timeout=_ASK_S)
            code = ray.get(actor.drain.remote(limit_s), timeout=limit_s + 2 * _ASK_S)
        except (GetTimeoutError, RayActorError):
            stay = False  # it has no place
        if not stay:
            ray.kill(actor, no_restart=True)
        return code

    def keep(self, spec: FleetSpec, *, least: int, most: int) -> None:
        """Note what the fleet is, for `kept` of whoever connects later."""
        record = ray.remote(RecordActor).options(
            name=RECORD,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            resources={_HEAD: 0.001},
            get_if_exists=True,
        )
        ray.get(record.remote().keep.remote(spec, least, most), timeout=_START_S)

    def kept(self) -> tuple[FleetSpec, int, int]:
        """(spec, least, most). Raises FramefeedError for a cluster on which no fleet is up."""
        try:
            actor = ray.get_actor(RECORD, namespace=NAMESPACE)
            kept: tuple[FleetSpec, int, int] | None = ray.get(actor.kept.remote(), timeout=_ASK_S)
        except (ValueError, RayError):
            kept = None
        if kept is None:
            raise FramefeedError("no fleet is up on this cluster; begin with framefeed fleet up")
        return kept

    @staticmethod
    def _hold(name: str, *, held: bool) -> None:
        try:
            record = ray.get_actor(RECORD, namespace=NAMESPACE)
            ray.get(record.hold.remote(name, held), timeout=_ASK_S)
        except (ValueError, RayError) as error:
            raise FramefeedError(f"the fleet's record does not answer, which the cluster's head has: {error}") from None

    @staticmethod
    def _actor(name: str) -> Any:
        try:
            return ray.get_actor(f"{PREFIX}{name}", namespace=NAMESPACE)
        except ValueError:
            raise FramefeedError(f"the fleet has no server {name!r}") from None

    def _ask(self, name: str, ask: Callable[[Any], Any]) -> Any:
        return ask(self._actor(name))

    @staticmethod
    def _placed(name: str, reply: Any, *, held: bool) -> PlacedServer:
        if reply is None:
            return PlacedServer(name=name, state="drained" if held else "pending")
        try:
            state, node, number, pid = ray.get(reply, timeout=_ASK_S)
        except RayError:
            return PlacedServer(name=name, state="drained" if held else "lost")
        return PlacedServer(name=name, state=state, node=node, socket=number, pid=pid)
