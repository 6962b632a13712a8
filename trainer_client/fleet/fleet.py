"""The servers as the client sees them: who is usable, how much each may hold, who gets the next request.

A pure state machine of events and time: no sockets, clock or chance. It knows attempts by number and size only; what is
asked, and what becomes of a clip, is the dispatch's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from framefeed.draws import ORDER, draw_below
from framefeed.errors import BadInput
from framefeed.wire import Load, ServerReply
from trainer_client.fleet.balancer import Asked, Balancer
from trainer_client.fleet.run_identity import Misfit, RunIdentity
from trainer_client.fleet.server import TAKES_REQUESTS, Event, Server, State
from trainer_client.measures.stats import Ledger

_LEAVING = ("draining", "stopped")  # what a server says of its state when it takes no more requests
_STARTING_SETTLES = 10.0  # times settle_s that servers which are connected but not ready are waited for
_TWICE = "twice"
_JITTER_STEPS = 1 << 10
_JITTER = 1 << 62  # counters of draws from here on are those of rests


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLimits:
    """When to stop trusting a server and how fast to come back to it.

    After `failures_to_down` unanswered or malformed requests in a row it gets none until it answers a probe; probes go
    out every `probe_s`, ever slower to a server that keeps failing. A busy server rests `busy_rest_s`, doubling to
    `busy_rest_max_s` while it stays busy, and up to half as much more or less, by seed. A part of a video has a home,
    which is passed over when its load would be more than 1 + `affinity_slack` of the mean; None is no homes.

    A new run takes the identity of most servers; those that are slow to say theirs are waited for `settle_s`, ten times
    as long if they are connected. Members that are not there are waited for `member_grace_s` before those that are
    have the last word: on a clip, or, when none fits the run, on the run.
    """

    failures_to_down: int = 3
    probe_s: float = 1.0
    busy_rest_s: float = 0.01
    busy_rest_max_s: float = 1.0
    affinity_slack: float | None = 0.25
    settle_s: float = 1.0
    member_grace_s: float = 30.0

    def __post_init__(self) -> None:
        if self.failures_to_down < 1:
            raise BadInput(f"is {self.failures_to_down}, wanted at least 1", of="loader", field="failures_to_down")
        if not (self.probe_s > 0 and 0 < self.busy_rest_s <= self.busy_rest_max_s):
            raise BadInput(f"loader: probe_s is {self.probe_s:g} and busy_rest_s {self.busy_rest_s:g}, wanted above 0")
        if self.affinity_slack is not None and not self.affinity_slack > 0:
            raise BadInput(f"is {self.affinity_slack:g}, wanted more than 0", of="loader", field="affinity_slack")
        for name in ("settle_s", "member_grace_s"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"is {getattr(self, name):g}, wanted at least 0 seconds", of="loader", field=name)


class Fleet:
    """All servers of one feed. Times are seconds of any monotonic clock, never read here."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        limits: FleetLimits,
        seed: int,
        now_s: float,
        identity: RunIdentity | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """`identity` says which servers fit the run; the ledger's `picks` and `shunned` are counted here."""
        ledger = Ledger() if ledger is None else ledger
        self.servers: dict[str, Server] = {}
        self.identity = RunIdentity() if identity is None else identity
        self._tidings: list[str] = []
        self._limits = limits
        self._seed = seed
        self._shunned = ledger.shunned
        self._told: set[tuple[str, str]] = set()
        self._up: dict[str, Server] = {}  # those that take requests; what a turn looks at is kept, not searched for
        self._roomy: dict[str, Server] = {}  # those of them with room, whether or not they rest
        self._probed: dict[str, Server] = {}
        self._balancer = Balancer(self._up, seed=seed, slack=limits.affinity_slack, picks=ledger.picks)
        self._rests = 0
        self._ready_since_s: float | None = None  # when the first said who it is
        self._unfit_since_s: float | None = None  # since when every member is shunned
        for url in urls:
            self.joined(url, now_s)

    # What happened.

    def joined(self, url: str, now_s: float) -> None:
        """A server is a member from now on; one that is already stays as it is."""
        server = self.servers.get(url)
        if server is None:
            server = self.servers[url] = Server(url=url, since_s=now_s)
            self._balancer.members_changed()
        server.leaves = False
        self._changed(server, now_s)

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
        self._changed(server, now_s)
        return lost

    def connected(self, url: str, now_s: float) -> list[int]:
        """A connection stands; the server is asked who it is. Returns the attempts lost with the one before it."""
        server = self.servers.get(url)
        if server is None:
            return []
        lost = self._orphans(server)
        server.connected()
        server.probe_at_s = now_s
        self._move(server, Event.CONNECTED, now_s)
        return lost

    def disconnected(self, url: str, now_s: float) -> list[int]:
        """The connection is gone. Returns the attempts that are lost with it."""
        server = self.servers.get(url)
        if server is None:
            return []
        server.who, server.siblings = None, ()
        self._move(server, Event.DISCONNECTED, now_s)
        for other in self.servers.values():
            if other.misfit is not None and other.misfit.reason == _TWICE:  # it may be wanted now
                other.probe_at_s = now_s
        return self._orphans(server)

    def described(self, url: str, who: ServerReply, now_s: float) -> list[int]:
        """A server said who it is. Returns the attempts that are lost because it turns out not to fit the run."""
        server = self.servers.get(url)
        if server is None or server.leaves or server.state is State.OFFLINE:
            return []
        self.heard(url, who.load, now_s)
        server.trouble, server.unread_probes, server.asked_anew = "", 0, False
        server.shows_metrics(who.metrics_port)
        misfit = self.identity.misfit(who) or self._twin(server, who)
        if misfit is not None:
            return self._shun(server, misfit, now_s)
        server.misfit = None
        server.names(who.siblings)
        if who.state in _LEAVING:
            server.who = None
            self._move(server, Event.LEAVING, now_s)
        elif who.state == "ready":
            server.who = who
            self._ready_since_s = now_s if self._ready_since_s is None else self._ready_since_s
            if self.identity.decided:
                self._admit(server, now_s)
        else:
            server.probe_at_s = min(server.probe_at_s, now_s + self._limits.probe_s / 5)  # it will be, soon
        self._changed(server, now_s)
        return self.settle(now_s)

    def settle(self, now_s: float) -> list[int]:
        """Decide on the run's identity when it is time. Returns the attempts that are lost by it."""
        lost: list[int] = []
        if self.identity.decided or self._ready_since_s is None:
            return lost
        members = [s for s in self.servers.values() if not s.leaves and s.state is not State.SHUNNED]
        ready = [server.who for server in members if server.who is not None]
        time_is_up = now_s >= self._settled_s()
        if not self.identity.elect(ready, members=len(members), time_is_up=time_is_up):
            return lost
        for server in members:
            who = server.who
            misfit = None if who is None else self.identity.misfit(who)
            if misfit is not None:
                lost += self._shun(server, misfit, now_s)
            elif who is not None:
                self._admit(server, now_s)
        return lost

    def shun(self, url: str, misfit: Misfit, now_s: float) -> list[int]:
        """Something else showed that a server does not fit. Returns the attempts that are lost by it."""
        server = self.servers.get(url)
        return [] if server is None or server.state is State.OFFLINE else self._shun(server, misfit, now_s)

    def unread(self, url: str, why: str, now_s: float) -> list[int]:
        """A server answered what cannot be read. Returns the attempts that are lost by it."""
        server = self.servers.get(url)
        if server is None:
            return []
        server.trouble = why
        return self._shun(server, Misfit("version", why), now_s) if server.unread() else []

    def heard(self, url: str, load: Load, now_s: float) -> None:
        """It lives, and this is how busy it is."""
        server = self.servers.get(url)
        if server is not None:
            has_room = server.has_room
            server.heard_s, server.load = now_s, load
            if server.has_room is not has_room:
                self._index(server)

    def sent(self, url: str, *, attempt: int, clip_bytes: int) -> None:
        """An attempt is on its way."""
        server = self.servers[url]
        server.attempts[attempt] = clip_bytes
        server.inflight_bytes += clip_bytes
        self._balancer.inflight_bytes += clip_bytes
        self._index(server)

    def served(self, url: str, attempt: int, now_s: float) -> None:
        """It answered with a clip: it is trusted."""
        server = self._release(url, attempt)
        if server.storage_faults >= self._limits.failures_to_down:
            self._tidings.append(f"server {url} reads its storage again")
        server.served()
        if server.state is State.TRIAL:  # no other state is moved by it
            self._move(server, Event.SERVED, now_s)

    def answered(self, url: str, attempt: int) -> None:
        """It answered with an error that says nothing against the server itself."""
        self._release(url, attempt).failures = 0

    def busy(self, url: str, *, attempt: int, now_s: float) -> None:
        """It had no room: it rests, longer each time."""
        server = self._release(url, attempt)
        server.failures = 0
        self._rest(server, now_s)

    def faulted(self, url: str, *, attempt: int, now_s: float, why: str) -> None:
        """Its storage failed. One that fails clip after clip, as where a mount is gone, answers quickest of all: it
        rests, so that clips are asked of those that can read them.
        """
        server = self._release(url, attempt)
        server.failures = 0
        if not self.any_but((url,)):
            return  # there is nobody else, and clips rest on their own
        server.storage_faults += 1
        if server.storage_faults == self._limits.failures_to_down:
            self._tidings.append(f"server {url} is asked little: clip after clip its storage fails ({why:.120})")
        if server.storage_faults >= self._limits.failures_to_down:
            self._rest(server, now_s)

    def leaving(self, url: str, *, attempt: int | None, now_s: float) -> None:
        """It said that it is draining: nothing new goes there, what it holds may finish."""
        server = self.servers.get(url) if attempt is None else self._release(url, attempt)
        if server is not None and server.state is not State.SHUNNED:
            self._move(server, Event.LEAVING, now_s)

    def failed(self, url: str, *, attempt: int, now_s: float) -> list[int]:
        """No usable answer. Returns the attempts that are given up because the server is no longer trusted."""
        server = self._release(url, attempt)
        if not server.failed(failures_to_stop=self._limits.failures_to_down):
            return []
        server.probe_at_s = now_s + server.probe_every_s(self._limits.probe_s) - self._limits.probe_s
        self._move(server, Event.FAILING, now_s)
        return self._orphans(server)

    def took(self, url: str, latency_s: float) -> None:
        """An answer of a server took so long, or was given up after so long."""
        if url in self.servers:
            self.servers[url].took(latency_s)

    def troubled(self, url: str, trouble: str) -> None:
        """What people should read of a server, if it is still a member."""
        if url in self.servers:
            self.servers[url].trouble = trouble

    def ask_again(self, url: str, now_s: float) -> None:
        """Ask a server soon who it is: it may have changed. It is used meanwhile."""
        server = self.servers.get(url)
        if server is not None and server.state in TAKES_REQUESTS and not server.asked_anew:
            server.asked_anew = True
            server.probe_at_s = max(now_s, server.probe_at_s)
            self._index(server)

    def tidings(self) -> list[str]:
        """Lines for people since the last call: servers that are not used, each once for each reason, and why."""
        tidings, self._tidings = self._tidings, []
        return tidings

    # What to do.

    def probes(self, now_s: float) -> list[str]:
        """Servers to ask now who they are; each is then not due again for its probe interval."""
        due = [server for server in self._probed.values() if server.probe_at_s <= now_s]
        for server in due:
            server.probe_at_s = now_s + server.probe_every_s(self._limits.probe_s)
        return [server.url for server in due]

    def pick(self, now_s: float, asked: Asked | None = None) -> str | None:
        """Who gets a clip; None if no server that may have it has room."""
        asked = Asked() if asked is None else asked
        server = self._balancer.pick(asked, room=self._roomy.values(), members=self.servers, now_s=now_s)
        return None if server is None else server.url

    def has_room(self, now_s: float) -> bool:
        """Whether any server may be sent a request now."""
        return any(now_s >= server.rest_until_s for server in self._roomy.values())

    def any_but(self, avoid: Collection[str]) -> bool:
        """Whether a server outside `avoid` takes requests, full or resting ones included."""
        return any(url not in avoid for url in self._up)

    def heard_since(self, url: str, since_s: float) -> bool:
        """Whether a server said anything since then."""
        server = self.servers.get(url)
        return server is not None and server.heard_s >= since_s

    @property
    def up(self) -> list[str]:
        """Servers that take requests, full or resting ones included."""
        return list(self._up)

    @property
    def inflight_bytes(self) -> int:
        """Bytes of clips asked for and not yet answered."""
        return self._balancer.inflight_bytes

    def awaited(self, now_s: float, *, since_s: float) -> list[str]:
        """Members that take no requests now but may soon: what is waited for since `since_s` may come of them."""
        grace_s = self._limits.member_grace_s
        away = [s for s in self.servers.values() if s.state not in TAKES_REQUESTS and s.state is not State.SHUNNED]
        return [s.url for s in away if not s.leaves and now_s < min(s.since_s, since_s) + grace_s]

    def unfit(self, now_s: float) -> str | None:
        """Why the run cannot go on: no member fits it, and that for so long; None if it can."""
        since_s = self._unfit_since_s
        return None if since_s is None or now_s < since_s + self._limits.member_grace_s else self._unfit_line()

    def wake_s(self, now_s: float) -> float | None:
        """When time alone next changes what settle(), probes(), pick() or unfit() say; None if it does not."""
        times = [server.probe_at_s for server in self._probed.values()]
        times += [s.rest_until_s for s in self._roomy.values() if s.rest_until_s > now_s]
        if not self.identity.decided and self._ready_since_s is not None:
            times.append(self._settled_s())
        if self._unfit_since_s is not None:
            times.append(self._unfit_since_s + self._limits.member_grace_s)
        return min(times, default=None)

    # How.

    def _settled_s(self) -> float:
        """When servers have had their time to say who they are."""
        assert self._ready_since_s is not None
        late = any(s.who is None and s.state is State.PROBING and not s.leaves for s in self.servers.values())
        return self._ready_since_s + self._limits.settle_s * (_STARTING_SETTLES if late else 1.0)

    def _twin(self, server: Server, who: ServerReply) -> Misfit | None:
        """Whether another address leads to the same process, which counts once: as a witness, and by its room."""
        for other in self.servers.values():
            if who.instance and other is not server and other.who is not None and other.who.instance == who.instance:
                return Misfit(_TWICE, f"it is server {who.server}, which {other.url} leads to as well; name it once")
        return None

    def _admit(self, server: Server, now_s: float) -> None:
        """It fits and takes requests."""
        if server.who is not None:
            self.identity.learn(server.who)
        self._move(server, Event.RECOVERING if server.stops else Event.SERVING, now_s)

    def _shun(self, server: Server, misfit: Misfit, now_s: float) -> list[int]:
        if (server.url, misfit.why) not in self._told:
            self._told.add((server.url, misfit.why))
            self._tidings.append(f"server {server.url} is not used ({misfit})")
            self._shunned[misfit.reason] += 1
        server.misfit, server.who, server.asked_anew, server.siblings = misfit, None, False, ()
        self._move(server, Event.MISFIT, now_s)
        server.probe_at_s = now_s + server.probe_every_s(self._limits.probe_s)
        return self._orphans(server)

    def _release(self, url: str, attempt: int) -> Server:
        server = self.servers[url]
        clip_bytes = server.attempts.pop(attempt)
        server.inflight_bytes -= clip_bytes
        self._balancer.inflight_bytes -= clip_bytes
        self._index(server)
        return server

    def _rest(self, server: Server, now_s: float) -> None:
        """It gets no request for a while, longer each time until it gives a clip."""
        if now_s >= server.rest_until_s:
            self._rests += 1
            share = draw_below(self._seed, _JITTER_STEPS, stream=ORDER, counter=_JITTER + self._rests) / _JITTER_STEPS
            rest_s = min(self._limits.busy_rest_s * 2.0 ** min(server.rests, 30), self._limits.busy_rest_max_s)
            server.rest_until_s = now_s + rest_s * (0.5 + share)
            server.rests += 1

    def _orphans(self, server: Server) -> list[int]:
        orphans = list(server.attempts)
        server.attempts.clear()
        self._balancer.inflight_bytes -= server.inflight_bytes
        server.inflight_bytes = 0
        self._index(server)
        return orphans

    def _move(self, server: Server, event: Event, now_s: float) -> None:
        server.move(event, now_s)
        self._changed(server, now_s)

    def _changed(self, server: Server, now_s: float) -> None:
        """A server came, went or changed its state."""
        self._index(server)
        self._balancer.server_changed()
        self._see_whether_any_fits(now_s)

    def _see_whether_any_fits(self, now_s: float) -> None:
        if not self.servers or any(s.state is not State.SHUNNED and not s.leaves for s in self.servers.values()):
            self._unfit_since_s = None
        elif self._unfit_since_s is None:
            self._unfit_since_s = now_s
            self._tidings.append(
                f"{self._unfit_line()}; the run ends in {self._limits.member_grace_s:g} s unless one comes that does"
            )

    def _unfit_line(self) -> str:
        servers = "; ".join(f"{server.url} ({server.misfit})" for server in self.servers.values() if not server.leaves)
        return f"no server fits this run: {servers}"

    def _index(self, server: Server) -> None:
        """Keep it where a turn looks for it, or let go of it: it left and holds nothing any more."""
        if server.leaves and not server.attempts and self.servers.pop(server.url, None) is not None:
            self._balancer.members_changed()
        gone = server.url not in self.servers
        takes = server.state in TAKES_REQUESTS and not gone
        for index, belongs in (
            (self._up, takes),
            (self._roomy, takes and server.has_room),
            (self._probed, server.probed and not gone),
        ):
            if belongs:
                index[server.url] = server
            else:
                index.pop(server.url, None)
