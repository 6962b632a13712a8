"""One server as the client sees it: where it stands, what moves it, and what it has earned.

A pure state machine: one enum, one table. It knows no other server, no clip and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from framefeed.wire import Load, ServerReply
from trainer_client.fleet.addresses import metrics_page_of, sibling_of
from trainer_client.fleet.run_identity import Misfit

_WINDOW_PER_WORKER = 2  # one clip in work and one behind it
_LATENCY_WEIGHT = 0.1  # of the newest answer in the moving average
_LONGEST_PROBE_S = 30.0
_MUTE_PROBES = 3  # answers in a row that cannot be read, before it counts as one of another version


class State(Enum):
    """Where a server stands."""

    __hash__ = object.__hash__  # a member is looked up at each turn of a feed, and Enum's own is not C
    OFFLINE = "offline"  # no connection
    PROBING = "probing"  # connected, but it has not said who it is, or stopped answering
    TRIAL = "trial"  # it had stopped and says that it is back: one request at a time until one brings a clip
    UP = "up"
    DRAINING = "draining"  # finishes what it has, takes nothing new
    SHUNNED = "shunned"  # it does not fit the run; it is asked again now and then


class Event(Enum):
    """What can move a server from one state to another."""

    __hash__ = object.__hash__
    CONNECTED = "connected"  # anew: what an earlier process did says nothing
    DISCONNECTED = "disconnected"
    SERVING = "serving"  # it said who it is and that it takes requests
    RECOVERING = "recovering"  # the same, of one that had failed
    SERVED = "served"  # it answered with a clip
    LEAVING = "leaving"  # it said that it takes no requests
    FAILING = "failing"  # too many requests in a row got no answer
    MISFIT = "misfit"  # it said who it is, and that is not what the run needs


TAKES_REQUESTS = frozenset({State.TRIAL, State.UP})
ASKED_WHO = frozenset({State.PROBING, State.DRAINING, State.SHUNNED})
_CONNECTED = frozenset(State) - {State.OFFLINE}

# What is not listed changes nothing.
NEXT: Mapping[tuple[State, Event], State] = {
    **{(state, Event.CONNECTED): State.PROBING for state in State},
    **{(state, Event.DISCONNECTED): State.OFFLINE for state in State},
    **{(state, Event.SERVING): State.UP for state in ASKED_WHO},
    **{(state, Event.RECOVERING): State.TRIAL for state in ASKED_WHO},
    (State.TRIAL, Event.SERVED): State.UP,
    **{(state, Event.LEAVING): State.DRAINING for state in _CONNECTED},
    **{(state, Event.FAILING): State.PROBING for state in (State.TRIAL, State.UP, State.DRAINING)},
    **{(state, Event.MISFIT): State.SHUNNED for state in _CONNECTED},
}


@dataclass(slots=True, eq=False)
class Server:
    """`latency_s` is the moving average of how long its answers take, None before the first; `heard_s` when it last
    said anything; `rests` and `storage_faults` are counted since it last gave a clip; `failures` requests in a
    row got no usable answer, which stopped its use `stops` times since it last gave a clip; `misfit` says why it is
    shunned. `siblings` are the URLs of its box's other fronts, while it stands to what it said; `metrics_page` is
    HOST:PORT of its metrics, as far as it ever said that they are where it was reached.
    """

    url: str
    since_s: float
    state: State = State.OFFLINE
    who: ServerReply | None = None  # what it said last, if it takes requests
    load: Load = field(default_factory=Load)
    heard_s: float = float("-inf")
    rests: int = 0
    rest_until_s: float = 0.0
    latency_s: float | None = None
    failures: int = 0
    storage_faults: int = 0
    stops: int = 0
    unread_probes: int = 0
    probe_at_s: float = 0.0
    asked_anew: bool = False  # who it is, though it takes requests: something it said is odd
    trouble: str = ""
    misfit: Misfit | None = None
    siblings: tuple[str, ...] = ()
    metrics_page: str = ""
    attempts: dict[int, int] = field(default_factory=dict)  # number: bytes of its clip
    inflight_bytes: int = 0
    leaves: bool = False  # no member any more; forgotten once it holds nothing of ours

    @property
    def workers(self) -> int:
        """Clips that it decodes at a time."""
        return max(self.who.workers, 1) if self.who is not None else 1

    @property
    def window_clips(self) -> int:
        """Requests that it may hold: what it grants, or two a worker if it does not say; one while it is on trial."""
        if self.state is State.TRIAL:
            return 1
        return self.load.credits or _WINDOW_PER_WORKER * self.workers

    @property
    def has_room(self) -> bool:
        """Whether it may be sent a request, once it has rested."""
        return self.state in TAKES_REQUESTS and len(self.attempts) < self.window_clips

    @property
    def probed(self) -> bool:
        """Whether it is to be asked who it is, from time to time."""
        return (self.state in ASKED_WHO or self.asked_anew) and not self.leaves

    def move(self, event: Event, now_s: float) -> None:
        """It happened: the table says where that leads."""
        state = NEXT.get((self.state, event), self.state)
        if state is not self.state:
            self.state, self.since_s = state, now_s

    def connected(self) -> None:
        """A new connection stands: a new process may be behind it."""
        self.siblings = ()
        self.who, self.load, self.latency_s, self.misfit = None, Load(), None, None
        self.failures = self.stops = self.unread_probes = self.rests = self.storage_faults = 0

    def names(self, bound: Iterable[str]) -> None:
        """It said which other fronts its box has, and where those listen."""
        urls = (sibling_of(self.url, url) for url in bound)
        self.siblings = tuple(dict.fromkeys(url for url in urls if url is not None))

    def shows_metrics(self, port: int) -> None:
        """It said at which port of its host they are; 0: not there."""
        self.metrics_page = metrics_page_of(self.url, port) if port else ""

    def took(self, latency_s: float) -> None:
        """An answer took so long, or was given up after so long."""
        before_s = latency_s if self.latency_s is None else self.latency_s
        self.latency_s = before_s + _LATENCY_WEIGHT * (latency_s - before_s)

    def served(self) -> None:
        """It answered with a clip: it is trusted."""
        self.failures = self.stops = self.rests = self.storage_faults = 0
        self.trouble = ""

    def failed(self, *, failures_to_stop: int) -> bool:
        """No usable answer. Returns whether it is to get no more requests: on trial a single one is enough."""
        if self.state not in (State.TRIAL, State.UP, State.DRAINING):
            return False
        self.failures += 1
        if self.state is not State.TRIAL and self.failures < failures_to_stop:
            return False
        self.stops += 1
        return True

    def unread(self) -> bool:
        """What it answered to the question who it is cannot be read. Returns whether it speaks another language."""
        self.unread_probes += self.state is State.PROBING
        return self.unread_probes >= _MUTE_PROBES

    def probe_every_s(self, probe_s: float) -> float:
        """Seconds between two questions who it is: twice as long after each stop, up to 30 s."""
        if self.state is State.SHUNNED:
            return max(_LONGEST_PROBE_S, probe_s)
        slower = 2.0 ** min(max(self.stops - 1, 0), 30)
        return min(probe_s * slower, max(_LONGEST_PROBE_S, probe_s))

    def __str__(self) -> str:
        why = str(self.misfit) if self.misfit is not None else self.trouble
        return f"{self.url} {self.state.value}, {len(self.attempts)} in flight" + (f", {why}" if why else "")
