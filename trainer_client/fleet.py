"""The servers as the client sees them: who is usable, how much each may hold, who gets the next request.

A pure state machine of events and time: no sockets, clock or chance. It knows attempts by number and size only; what is
asked, and what becomes of a clip, is the dispatch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from framefeed.draws import ORDER, draw_below
from framefeed.errors import BadInput
from framefeed.wire import ServerReply

_FIRST_WINDOW_PER_WORKER = 2  # one clip in work and one behind it
_LONGEST_PROBE_S = 30.0
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
    FAILING = "failing"  # too many failures in a row


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

    After `failures_to_down` unanswered or garbled requests in a row it gets none until it answers a probe; probes go
    out every `probe_s`, ever slower to a server that keeps failing. A busy server rests `busy_rest_s`, doubling to
    `busy_rest_max_s` while it stays busy. Servers with different decoders are refused unless `allow_mixed_decoders`.
    """

    failures_to_down: int = 3
    probe_s: float = 1.0
    busy_rest_s: float = 0.01
    busy_rest_max_s: float = 1.0
    allow_mixed_decoders: bool = False

    def __post_init__(self) -> None:
        if self.failures_to_down < 1:
            raise BadInput(f"loader: failures_to_down is {self.failures_to_down}, wanted at least 1")
        if not (self.probe_s > 0 and 0 < self.busy_rest_s <= self.busy_rest_max_s):
            raise BadInput(f"loader: probe_s is {self.probe_s:g} and busy_rest_s {self.busy_rest_s:g}, wanted above 0")


@dataclass(slots=True)
class Server:
    """One server: its state, what it holds of ours, and what it has earned.

    `window_clips` is how many requests it may hold: doubled every round trip until it is first busy, then one more each
    round trip and half at every busy (Jacobson 1988, as TCP does), so a fleet shared by many ranks settles by itself.
    """

    url: str
    since_s: float
    state: State = State.OFFLINE
    fingerprint: str = ""
    workers: int = 1
    window_clips: float = 0.0
    was_busy: bool = False
    busy_streak: int = 0
    rest_until_s: float = 0.0
    failures: int = 0
    downs: int = 0
    probe_at_s: float = 0.0
    trouble: str = ""
    attempts: dict[int, int] = field(default_factory=dict)
    inflight_bytes: int = 0

    def has_room(self, now_s: float) -> bool:
        """Whether it may be sent a request now."""
        return self.state is State.UP and now_s >= self.rest_until_s and len(self.attempts) < int(self.window_clips)

    def __str__(self) -> str:
        return f"{self.url} {self.state.value}, {len(self.attempts)} in flight" + (
            f", {self.trouble}" if self.trouble else ""
        )


class Fleet:
    """All servers of one feed. Times are seconds of any monotonic clock, never read here."""

    def __init__(
        self, urls: Sequence[str], *, limits: FleetLimits, seed: int, fingerprint: str | None, now_s: float
    ) -> None:
        """`fingerprint` is the decoder that a resumed run began with, None to take the first server's."""
        self.servers = {url: Server(url=url, since_s=now_s) for url in urls}
        self.fingerprint = fingerprint
        self._limits = limits
        self._seed = seed
        self._picks = 0
        self._absent_s = 0.0
        self._absent_since_s: float | None = now_s

    # What happened.

    def connected(self, url: str, now_s: float) -> list[int]:
        """A connection stands; the server is asked who it is. Returns the attempts lost with the one before it."""
        lost = self._orphans(url)
        server = self.servers[url]
        server.failures = server.downs = 0
        server.window_clips, server.was_busy = 0.0, False
        self._move(server, Event.CONNECTED, now_s)
        server.probe_at_s = now_s
        return lost

    def disconnected(self, url: str, now_s: float) -> list[int]:
        """The connection is gone. Returns the attempts that are lost with it."""
        self._move(self.servers[url], Event.DISCONNECTED, now_s)
        return self._orphans(url)

    def described(self, url: str, reply: ServerReply, now_s: float) -> None:
        """A server said who it is. Raises BadInput for another decoder than the run's, unless that is allowed."""
        server = self.servers[url]
        server.fingerprint, server.trouble = reply.fingerprint, ""
        server.workers = max(reply.workers, 1)
        if self.fingerprint is None:
            self.fingerprint = reply.fingerprint
        elif reply.fingerprint != self.fingerprint and not self._limits.allow_mixed_decoders:
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
            failed_before = server.downs > 0
            server.window_clips = 1 if failed_before else _FIRST_WINDOW_PER_WORKER * server.workers
            server.failures = self._limits.failures_to_down - 1 if failed_before else 0

    def sent(self, url: str, *, attempt: int, clip_bytes: int) -> None:
        """An attempt is on its way."""
        server = self.servers[url]
        server.attempts[attempt] = clip_bytes
        server.inflight_bytes += clip_bytes

    def served(self, url: str, attempt: int) -> None:
        """It answered with a clip: it is trusted, and its window grows."""
        self._settle(url, attempt)
        server = self.servers[url]
        server.failures = server.downs = server.busy_streak = 0
        server.window_clips += 1 / server.window_clips if server.was_busy and server.window_clips >= 1 else 1

    def answered(self, url: str, attempt: int) -> None:
        """It answered with an error that says nothing against the server itself."""
        self._settle(url, attempt)
        self.servers[url].failures = 0

    def busy(self, url: str, *, attempt: int, now_s: float) -> None:
        """It had no room: it rests, and its window halves once per rest."""
        self._settle(url, attempt)
        server = self.servers[url]
        server.failures = 0
        if now_s >= server.rest_until_s:
            server.was_busy = True
            server.window_clips = max(server.window_clips / 2, 1.0)
            rest_s = self._limits.busy_rest_s * 2.0 ** min(server.busy_streak, 30)
            server.rest_until_s = now_s + min(rest_s, self._limits.busy_rest_max_s)
            server.busy_streak += 1

    def leaving(self, url: str, *, attempt: int | None, now_s: float) -> None:
        """It said that it is draining: nothing new goes there, what it holds may finish."""
        if attempt is not None:
            self._settle(url, attempt)
        self._move(self.servers[url], Event.LEAVING, now_s)

    def failed(self, url: str, *, attempt: int, now_s: float) -> list[int]:
        """No usable answer. Returns the attempts that are given up because the server is no longer trusted."""
        self._settle(url, attempt)
        server = self.servers[url]
        server.failures += 1
        if server.failures < self._limits.failures_to_down or server.state in (State.OFFLINE, State.PROBING):
            return []
        self._move(server, Event.FAILING, now_s)
        server.downs += 1
        server.probe_at_s = now_s + self._probe_every_s(server) - self._limits.probe_s
        return self._orphans(url)

    # What to do.

    def probes(self, now_s: float) -> list[str]:
        """Servers to ask now who they are; each is then not due again for its probe interval."""
        due = [s for s in self.servers.values() if s.state in (State.PROBING, State.DRAINING) and s.probe_at_s <= now_s]
        for server in due:
            server.probe_at_s = now_s + self._probe_every_s(server)
        return [server.url for server in due]

    def pick(self, now_s: float, *, avoid: Iterable[str] = ()) -> str | None:
        """The less loaded of two servers with room, drawn by seed; None if no server outside `avoid` has room.

        Load is bytes in flight per worker (Mitzenmacher 2001: two choices are nearly as good as all).
        """
        room = [server for server in self.servers.values() if server.has_room(now_s) and server.url not in avoid]
        if len(room) <= 1:
            return room[0].url if room else None
        self._picks += 1
        first = draw_below(self._seed, len(room), stream=ORDER, counter=2 * self._picks)
        second = draw_below(self._seed, len(room) - 1, stream=ORDER, counter=2 * self._picks + 1)
        pair = room[first], room[second + (second >= first)]
        return min(pair, key=lambda server: server.inflight_bytes / server.workers).url

    def has_room(self, now_s: float) -> bool:
        """Whether any server may be sent a request now."""
        return any(server.has_room(now_s) for server in self.servers.values())

    @property
    def up(self) -> list[str]:
        """Servers that take requests, full or resting ones included."""
        return [server.url for server in self.servers.values() if server.state is State.UP]

    @property
    def inflight_bytes(self) -> int:
        """Bytes of clips asked for and not yet answered."""
        return sum(server.inflight_bytes for server in self.servers.values())

    def absent_s(self, now_s: float) -> float:
        """Seconds so far in which no server took requests."""
        return self._absent_s + (now_s - self._absent_since_s if self._absent_since_s is not None else 0.0)

    def wake_s(self, now_s: float) -> float | None:
        """When time alone next changes what probes() or pick() say; None if it does not."""
        times = [s.probe_at_s for s in self.servers.values() if s.state in (State.PROBING, State.DRAINING)]
        times += [s.rest_until_s for s in self.servers.values() if s.state is State.UP and s.rest_until_s > now_s]
        return min(times, default=None)

    def _probe_every_s(self, server: Server) -> float:
        slower = 2.0 ** min(max(server.downs - 1, 0), 30)
        return min(self._limits.probe_s * slower, max(_LONGEST_PROBE_S, self._limits.probe_s))

    def _settle(self, url: str, attempt: int) -> None:
        server = self.servers[url]
        server.inflight_bytes -= server.attempts.pop(attempt)

    def _orphans(self, url: str) -> list[int]:
        server = self.servers[url]
        orphans = list(server.attempts)
        server.attempts.clear()
        server.inflight_bytes = 0
        return orphans

    def _move(self, server: Server, event: Event, now_s: float) -> None:
        state = _NEXT.get((server.state, event), server.state)
        if state is not server.state:
            server.state, server.since_s = state, now_s
        if self.up:
            self._absent_s, self._absent_since_s = self.absent_s(now_s), None
        elif self._absent_since_s is None:
            self._absent_since_s = now_s
