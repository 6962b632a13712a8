"""Keeps a fleet as large as the policy says: signals in, servers started and drained. It knows no engine and no pages.

Each decision that changes something, or its cause, is one INFO line, one event and one count.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry, Counter, Gauge

from framefeed.cli.fleet.plane import FleetSpec, PlacedServer, Plane, is_local, next_names, serving, to_drain
from framefeed.cli.fleet.policy import CAUSES, Decision, FleetLimits, Past, Signals, decide

log = logging.getLogger("framefeed.fleet")

STATES = ("up", "starting", "draining", "drained", "pending", "lost")
_KEPT_EVENTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetEvent:
    """A decision: when (Unix seconds), how many servers were wanted before and are now, and why."""

    unix_s: float
    before: int
    wanted: int
    cause: str
    reason: str


class FleetSizes:
    """What a page of metrics says of a fleet."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Every label is there at 0 from the start."""
        self._wanted = Gauge("framefeed_fleet_wanted_servers", "Servers that the policy wants.", registry=registry)
        self._servers = Gauge(
            "framefeed_fleet_servers", "Servers of the fleet by what they do.", ["state"], registry=registry
        )
        self.decisions = Counter(
            "framefeed_fleet_decisions", "Decisions on the fleet's size that were new.", ["cause"], registry=registry
        )
        for state in STATES:
            self._servers.labels(state)
        for cause in CAUSES:
            self.decisions.labels(cause)

    def are(self, wanted: int, servers: Sequence[PlacedServer]) -> None:
        """So many are wanted, and these there are."""
        self._wanted.set(wanted)
        for state in STATES:
            self._servers.labels(state).set(sum(server.state == state for server in servers))


class Autoscaler:
    """One fleet. `turn` is called again and again, by one thread; `events` are the last decisions."""

    def __init__(self, plane: Plane, spec: FleetSpec, *, drain_s: float, registry: CollectorRegistry) -> None:
        self.events: deque[FleetEvent] = deque(maxlen=_KEPT_EVENTS)
        self._plane, self._spec, self._drain_s = plane, spec, drain_s
        self._past: Past | None = None
        self._cause = ""
        self._drained = 0
        self._sizes = FleetSizes(registry)

    def turn(self, limits: FleetLimits, now: Signals) -> Decision:
        """Decide by what was measured, say so, and have it so. Blocks while servers drain.

        A server that was drained by hand is one fewer that is wanted, at least as well: another is started in its stead
        when a rank starves for it, not before.
        """
        servers = self._plane.servers()
        drained = sum(server.state == "drained" for server in servers)
        limits = replace(limits, least=max(limits.least - drained, 0))
        past = self._past or Past(wanted=min(max(len(serving(servers)), limits.least), limits.most), since_s=now.at_s)
        if self._past is not None and drained > self._drained:
            past = replace(past, wanted=max(past.wanted - (drained - self._drained), 0), since_s=now.at_s)
        self._drained = drained
        decision, self._past = decide(limits, past, now)
        if decision.change or decision.cause != self._cause:
            self._say(past.wanted, decision)
        self._cause = decision.cause
        reconcile(self._plane, self._spec, servers, wanted=decision.wanted, local=decision.local, drain_s=self._drain_s)
        self._sizes.are(decision.wanted, servers)
        return decision

    def _say(self, before: int, decision: Decision) -> None:
        event = FleetEvent(
            unix_s=time.time(), before=before, wanted=decision.wanted, cause=decision.cause, reason=decision.reason
        )
        self.events.append(event)
        self._sizes.decisions.labels(decision.cause).inc()
        log.info("%d servers wanted, were %d: %s: %s", event.wanted, event.before, event.cause, event.reason)


def reconcile(
    plane: Plane, spec: FleetSpec, servers: Sequence[PlacedServer], *, wanted: int, local: int, drain_s: float
) -> None:
    """Start what is missing of `wanted` servers, of which `local` on the trainer's machine, and drain what is too much.

    Servers that drain already, or were drained, do not count. Blocks while servers drain.
    """
    staying = serving(servers)
    for here, count in ((True, min(local, wanted)), (False, wanted - min(local, wanted))):
        have = [server for server in staying if is_local(server) is here]
        for name in next_names(servers, count - len(have), local=here):
            plane.start(name, spec, local=here)
            log.info("%s is to be started", name)
        for name in to_drain(have, len(have) - count):
            code = plane.drain(name, limit_s=drain_s)
            log.log(logging.INFO if code == 0 else logging.WARNING, "%s is gone, exit code %s", name, code)
