"""The servers as the client sees them: who is usable, how much each may hold, who gets the next request.

A pure state machine of events and time: no sockets, clock or chance. It knows attempts by number and size only; what is
asked, and what becomes of a clip, is the dispatch's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from framefeed.draws import ORDER, draw_below
from framefeed.errors import BadInput
from framefeed.wire import ServerReply
from trainer_client.fleet.affinity import Ring
from trainer_client.fleet.breaker import Breaker, Circuit

_FIRST_WINDOW_PER_WORKER = 2  # one clip in work and one behind it
_LATENCY_WEIGHT = 0.1  # of the newest answer in the moving average
_SPEED_RATIO = 4.0  # a server counts as at most so many times slower or faster than the mean
_LEAVING = ("draining", "stopped")  # what a server says of its state when it takes no more requests


class State(Enum):
    """Where a server stands."""

    OFFLINE = "offline"  # no connection
    PROBING = "probing"  # connected, but it has not said who it is, or stopped answering
    UP = "up"
    DRAINING = "draining"  # finishes what it has, takes nothing new


class Event(Enum):
    """What can move a server from one state to another."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    SERVING = "serving"  # it said who it is and that it takes requests
    LEAVING = "leaving"  # it said that it does not
    FAILING = "failing"  # its circuit opened


# What is not listed changes nothing.
_NEXT: dict[tuple[State, Event], State] = {
    **{(state, Event.CONNECTED): State.PROBING for state in State},
    **{(state, Event.DISCONNECTED): State.OFFLINE for state in State},
    **{(state, Event.SERVING): State.UP for state in (State.PROBING, State.DRAINING)},
    **{(state, Event.LEAVING): State.DRAINING for state in (State.PROBING, State.UP)},
    **{(state, Event.FAILING): State.PROBING for state in (State.UP, State.DRAINING)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLimits:
    """When to stop trusting a server and how fast to come back to it.

    After `failures_to_down` unanswered or malformed requests in a row it gets none until it answers a probe; probes go
    out every `probe_s`, ever slower to a server that keeps failing. A busy server rests `busy_rest_s`, doubling to
    `busy_rest_max_s` while it stays busy. Servers with different decoders are refused unless `allow_mixed_decoders`.
    A part of a video has a home, which is passed over when its load would be more than 1 + `affinity_slack` of the
    mean; None is no homes.
    """

    failures_to_down: int = 3
    probe_s: float = 1.0
    busy_rest_s: float = 0.01
    busy_rest_max_s: float = 1.0
    allow_mixed_decoders: bool = False
    affinity_slack: float | None = 0.25

    def __post_init__(self) -> None:
        if self.failures_to_down < 1:
            raise BadInput(f"loader: failures_to_down is {self.failures_to_down}, wanted at least 1")
        if not (self.probe_s > 0 and 0 < self.busy_rest_s <= self.busy_rest_max_s):
            raise BadInput(f"loader: probe_s is {self.probe_s:g} and busy_rest_s {self.busy_rest_s:g}, wanted above 0")
        if self.affinity_slack is not None and not self.affinity_slack > 0:
            raise BadInput(f"loader: affinity_slack is {self.affinity_slack:g}, wanted more than 0")


@dataclass(slots=True)
class Server:
    """One server: its state, what it holds of ours, and what it has earned.

    `window_clips` is how many requests it may hold: doubled every round trip until it is first busy, then one more each
    round trip and half at every busy (Jacobson 1988, as TCP does), so a fleet shared by many ranks settles by itself.
    `latency_s` is the moving average of how long its answers take, None before the first.
    """

    url: str
    since_s: float
    breaker: Breaker
    state: State = State.OFFLINE
    fingerprint: str = ""
    workers: int = 1
    window_clips: float = 0.0
    was_busy: bool = False
    busy_streak: int = 0
    rest_until_s: float = 0.0
    latency_s: float | None = None
    probe_at_s: float = 0.0
    trouble: str = ""
    attempts: dict[int, int] = field(default_factory=dict)
    inflight_bytes: int = 0
    leaves: bool = False  # no member any more; forgotten once it holds nothing of ours

    def has_room(self, now_s: float) -> bool:
        """Whether it may be sent a request now."""
        window_clips = 1 if self.breaker.circuit is Circuit.HALF_OPEN else int(self.window_clips)
        return self.state is State.UP and now_s >= self.rest_until_s and len(self.attempts) < window_clips

    def __str__(self) -> str:
        return f"{self.url} {self.state.value}, {len(self.attempts)} in flight" + (
            f", {self.trouble}" if self.trouble else ""
        )


class Fleet:
    """All servers of one feed. Times are seconds of any monotonic clock, never read here."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        limits: FleetLimits,
        seed: int,
        fingerprint: str | None,
        now_s: float,
        picks: Counter[str] | None = None,
    ) -> None:
        """`fingerprint` is the decoder that a resumed run began with, None to take the first server's.

        `picks` counts why servers were picked: "home", "passed_on" to the next server of a part, "two_choices".
        """
        self.servers: dict[str, Server] = {}
        self.fingerprint = fingerprint
        self.picks: Counter[str] = Counter() if picks is None else picks
        self._ring: Ring | None = None  # made anew when it is needed and members changed
        self._limits = limits
        self._seed = seed
        self._picks = 0
        self._speed: dict[str, float] = {}
        self._speed_picks_left = 0
        self.inflight_bytes = 0  # of clips asked for and not yet answered
        self._absent_s = 0.0
        self._absent_since_s: float | None = now_s
        for url in urls:
            self.joined(url, now_s)

    # What happened.

    def joined(self, url: str, now_s: float) -> None:
        """A server is a member from now on; one that is already stays as it is."""
        if url in self.servers:
            self.servers[url].leaves = False
            return
        breaker = Breaker(failures_to_open=self._limits.failures_to_down, probe_s=self._limits.probe_s)
        self.servers[url] = Server(url=url, since_s=now_s, breaker=breaker)
        self._ring = None

    def left(self, url: str, now_s: float) -> list[int]:
        """A server is no member any more. Returns the attempts to ask of others.

        One that is draining keeps what it has and stays in `servers` until it has answered, failed or disconnected; any
        other is forgotten at once. Whoever owns the connections closes those to servers that are not in `servers`.
        """
        server = self.servers.get(url)
        if server is None:
            return []
        server.leaves = True
        lost = [] if server.state is State.DRAINING else self._orphans(server)
        self._forget(server)
        self._count_absence(now_s)
        return lost

    def connected(self, url: str, now_s: float) -> list[int]:
        """A connection stands; the server is asked who it is. Returns the attempts lost with the one before it."""
        server = self.servers.get(url)
        if server is None:
            return []
        lost = self._orphans(server)
        server.breaker.connected()
        server.window_clips, server.was_busy, server.latency_s = 0.0, False, None
        self._move(server, Event.CONNECTED, now_s)
        server.probe_at_s = now_s
        return lost

    def disconnected(self, url: str, now_s: float) -> list[int]:
        """The connection is gone. Returns the attempts that are lost with it."""
        server = self.servers.get(url)
        if server is None:
            return []
        self._move(server, Event.DISCONNECTED, now_s)
        return self._orphans(server)

    def described(self, url: str, reply: ServerReply, now_s: float) -> None:
        """A server said who it is. Raises BadInput for another decoder than the run's, unless that is allowed."""
        server = self.servers.get(url)
        if server is None or server.leaves:
            return
        server.fingerprint, server.trouble = reply.fingerprint, ""
        server.workers = max(reply.workers, 1)
        if self.fingerprint is None:
            self.fingerprint = reply.fingerprint or None  # empty: no worker is up yet that could tell
        elif reply.fingerprint and reply.fingerprint != self.fingerprint and not self._limits.allow_mixed_decoders:
            raise BadInput(
                f"server {url} decodes with {reply.fingerprint!r}, this run with {self.fingerprint!r}: the same "
                "request could give other bytes; run one version everywhere, or set allow_mixed_decoders"
            )
        if reply.state in _LEAVING:
            self._move(server, Event.LEAVING, now_s)
        elif reply.state != "ready":
            server.probe_at_s = min(server.probe_at_s, now_s + self._limits.probe_s / 5)  # it will be, soon
        elif server.state is not State.UP:
            self._move(server, Event.SERVING, now_s)
            server.breaker.described()
            trusted = server.breaker.circuit is Circuit.CLOSED
            server.window_clips = _FIRST_WINDOW_PER_WORKER * server.workers if trusted else 1

    def sent(self, url: str, *, attempt: int, clip_bytes: int) -> None:
        """An attempt is on its way."""
        server = self.servers[url]
        server.attempts[attempt] = clip_bytes
        server.inflight_bytes += clip_bytes
        self.inflight_bytes += clip_bytes

    def served(self, url: str, attempt: int) -> None:
        """It answered with a clip: it is trusted, and its window grows."""
        server = self._settle(url, attempt)
        server.trouble = ""
        server.breaker.served()
        server.busy_streak = 0
        server.window_clips += 1 / server.window_clips if server.was_busy and server.window_clips >= 1 else 1

    def answered(self, url: str, attempt: int) -> None:
        """It answered with an error that says nothing against the server itself."""
        self._settle(url, attempt).breaker.answered()

    def busy(self, url: str, *, attempt: int, now_s: float) -> None:
        """It had no room: it rests, and its window halves once per rest."""
        server = self._settle(url, attempt)
        server.breaker.answered()
        if now_s >= server.rest_until_s:
            server.was_busy = True
            server.window_clips = max(server.window_clips / 2, 1.0)
            rest_s = self._limits.busy_rest_s * 2.0 ** min(server.busy_streak, 30)
            server.rest_until_s = now_s + min(rest_s, self._limits.busy_rest_max_s)
            server.busy_streak += 1

    def leaving(self, url: str, *, attempt: int | None, now_s: float) -> None:
        """It said that it is draining: nothing new goes there, what it holds may finish."""
        server = self.servers.get(url) if attempt is None else self._settle(url, attempt)
        if server is not None:
            self._move(server, Event.LEAVING, now_s)

    def failed(self, url: str, *, attempt: int, now_s: float) -> list[int]:
        """No usable answer. Returns the attempts that are given up because the server is no longer trusted."""
        server = self._settle(url, attempt)
        if server.state in (State.OFFLINE, State.PROBING) or not server.breaker.failed():
            return []
        self._move(server, Event.FAILING, now_s)
        server.probe_at_s = now_s + server.breaker.probe_every_s - self._limits.probe_s
        return self._orphans(server)

    def took(self, url: str, latency_s: float) -> None:
        """An answer of a server took so long, or was given up after so long."""
        server = self.servers.get(url)
        if server is not None:
            before_s = latency_s if server.latency_s is None else server.latency_s
            server.latency_s = before_s + _LATENCY_WEIGHT * (latency_s - before_s)

    def troubled(self, url: str, trouble: str) -> None:
        """What people should read of a server, if it is still a member."""
        if url in self.servers:
            self.servers[url].trouble = trouble

    # What to do.

    def probes(self, now_s: float) -> list[str]:
        """Servers to ask now who they are; each is then not due again for its probe interval."""
        due = [server for server in self._probed if server.probe_at_s <= now_s]
        for server in due:
            server.probe_at_s = now_s + server.breaker.probe_every_s
        return [server.url for server in due]

    def pick(
        self, now_s: float, *, avoid: Collection[str] = (), key: int | None = None, clip_bytes: int = 1
    ) -> str | None:
        """Who gets a clip of the part `key` of a video; None if no server outside `avoid` has room.

        The first server with room on the key's walk around the ring whose load stays within bounds (Mirrokni, Thorup
        and Zadimoghaddam 2018, consistent hashing with bounded loads). Without a key, or if none does, the less loaded
        of two drawn by seed (Mitzenmacher 2001: two choices are nearly as good as all). Load is bytes in flight a
        worker times the average latency, so that a slow server gets less.
        """
        if key is not None and self._limits.affinity_slack is not None:
            for count, server in enumerate(self._bearing(key, clip_bytes, slack=self._limits.affinity_slack)):
                if server is not None and server.has_room(now_s) and server.url not in avoid:
                    self.picks["passed_on" if count else "home"] += 1
                    return server.url
        room = [s for s in self.servers.values() if s.has_room(now_s) and s.url not in avoid]
        self.picks["two_choices"] += bool(room)
        return self._less_loaded(room).url if room else None

    def has_room(self, now_s: float) -> bool:
        """Whether any server may be sent a request now."""
        return any(server.has_room(now_s) for server in self.servers.values())

    @property
    def up(self) -> list[str]:
        """Servers that take requests, full or resting ones included."""
        return [server.url for server in self.servers.values() if server.state is State.UP]

    def absent_s(self, now_s: float) -> float:
        """Seconds so far in which no server took requests."""
        return self._absent_s + (now_s - self._absent_since_s if self._absent_since_s is not None else 0.0)

    def wake_s(self, now_s: float) -> float | None:
        """When time alone next changes what probes() or pick() say; None if it does not."""
        times = [server.probe_at_s for server in self._probed]
        times += [s.rest_until_s for s in self.servers.values() if s.state is State.UP and s.rest_until_s > now_s]
        return min(times, default=None)

    @property
    def _probed(self) -> list[Server]:
        waits = (State.PROBING, State.DRAINING)
        return [server for server in self.servers.values() if server.state in waits and not server.leaves]

    def _bearing(self, key: int, clip_bytes: int, *, slack: float) -> Iterator[Server | None]:
        """The servers that take requests, as the key's walk meets them; None for one that bears no further clip."""
        speed = self._speeds()
        clips_per_speed = (1 + slack) * (self.inflight_bytes + clip_bytes) / clip_bytes / (sum(speed.values()) or 1.0)
        self._ring = Ring(self.servers) if self._ring is None else self._ring
        for url in self._ring.walk(key):
            if url in speed:
                bound_bytes = math.ceil(clips_per_speed * speed[url]) * clip_bytes
                server = self.servers[url]
                yield server if server.inflight_bytes + clip_bytes <= bound_bytes else None

    def _less_loaded(self, room: Sequence[Server]) -> Server:
        if len(room) == 1:
            return room[0]
        self._picks += 1
        first = draw_below(self._seed, len(room), stream=ORDER, counter=2 * self._picks)
        second = draw_below(self._seed, len(room) - 1, stream=ORDER, counter=2 * self._picks + 1)
        speed = self._speeds()
        pair = room[first], room[second + (second >= first)]
        return min(pair, key=lambda server: server.inflight_bytes / speed[server.url])

    def _speeds(self) -> Mapping[str, float]:
        """Workers a second of latency of each server that takes requests, relative to the mean latency; who has not
        answered yet counts as average. Looked at anew after as many picks as there are servers, or when one changed.
        """
        self._speed_picks_left -= 1
        if self._speed_picks_left < 0:
            up = [server for server in self.servers.values() if server.state is State.UP]
            known_s = [server.latency_s for server in up if server.latency_s]
            mean_s = sum(known_s) / len(known_s) if known_s else 1.0
            ratios = (min(max(mean_s / (s.latency_s or mean_s), 1 / _SPEED_RATIO), _SPEED_RATIO) for s in up)
            self._speed = {server.url: server.workers * ratio for server, ratio in zip(up, ratios, strict=True)}
            self._speed_picks_left = len(up)
        return self._speed

    def _settle(self, url: str, attempt: int) -> Server:
        server = self.servers[url]
        clip_bytes = server.attempts.pop(attempt)
        server.inflight_bytes -= clip_bytes
        self.inflight_bytes -= clip_bytes
        self._forget(server)
        return server

    def _orphans(self, server: Server) -> list[int]:
        orphans = list(server.attempts)
        server.attempts.clear()
        self.inflight_bytes -= server.inflight_bytes
        server.inflight_bytes = 0
        self._forget(server)
        return orphans

    def _forget(self, server: Server) -> None:
        """Let go of a server that left and holds nothing any more."""
        if server.leaves and not server.attempts and self.servers.pop(server.url, None) is not None:
            self._ring = None

    def _move(self, server: Server, event: Event, now_s: float) -> None:
        state = _NEXT.get((server.state, event), server.state)
        if state is not server.state:
            server.state, server.since_s = state, now_s
        self._count_absence(now_s)

    def _count_absence(self, now_s: float) -> None:
        self._speed_picks_left = 0  # this is called when a server came, went or changed
        if self.up:
            self._absent_s, self._absent_since_s = self.absent_s(now_s), None
        elif self._absent_since_s is None:
            self._absent_since_s = now_s
