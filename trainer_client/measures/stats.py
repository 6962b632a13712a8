"""The counts of one feed and their snapshot, FeedStats; knows neither who counts nor how they are exported.

The Ledger is written by one owner for each count (the dispatch, but for those named otherwise) and read by snapshot().
Conservation: requested = used + dropped (by reason) + in flight + held, at every instant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer_client.measures.wait import Wait, WaitLedger

IDENTITY = ("run", "dataset", "fingerprint")
# 1 ms to 30 s: from a cached clip on loopback to the longest deadline.
DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class Durations:
    """A classic histogram: counts per bucket of DURATION_BOUNDS_S and one beyond, and their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds

    def copy(self) -> Durations:
        """A snapshot."""
        return Durations(counts=list(self.counts), sum_s=self.sum_s)


@dataclass(slots=True)
class Ledger:
    """Running counts of one rank's feed over all its restarts; they only grow.

    `outcomes` are finished requests by (server, "ok" or the reason why their answer was not used), `retries` clips that
    are asked for again by reason, `dropped_replies` replies that nobody needed by reason (their requests are in
    `outcomes`), `discarded` received clips thrown away unused (the prefetcher's count). `hedged` requests were second
    ones for a clip in flight, `hedges` counts those that are over by who gave the clip: the hedge, another request
    ("first"), or neither. `picks` are servers picked by why and `shunned` those not used because they do not fit the
    run by reason, the fleet's counts. `overdue` requests took longer than their deadline. `stalls` are standstills that
    did not end the run.
    """

    requested: int = 0
    hedged: int = 0
    hedges: Counter[str] = field(default_factory=Counter)
    picks: Counter[str] = field(default_factory=Counter)
    shunned: Counter[str] = field(default_factory=Counter)
    overdue: int = 0
    stalls: int = 0
    poisoned: Counter[str] = field(default_factory=Counter)  # samples that no server could give, by the error's code
    stood_in: int = 0  # clips delivered in the place of such samples: the consumer's
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    dropped_replies: Counter[str] = field(default_factory=Counter)
    durations: dict[str, Durations] = field(default_factory=dict)
    received_bytes: int = 0
    read_bytes: int = 0
    batches: int = 0  # delivered ones: the consumer's, as are the clips used in them
    used: int = 0
    discarded: int = 0
    receive_cpu_s: float = 0.0  # the feed's thread's own
    waits: WaitLedger = field(default_factory=WaitLedger)  # the consumer's


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStats:
    """What a feed has done so far and where it stands; the source of the metrics and of a run's summary.

    `requests` counts finished requests by (server, outcome); `in_flight` requests await their answer, `held` clips lie
    in batches not yet delivered; `dropped` counts requests by the reason why they did not become data. `hedged`,
    `hedges`, `picks`, `shunned`, `overdue`, `stalls`, `poisoned` and `stood_in` are the Ledger's. `deadline_s` is when
    a second server is asked for a clip now, 0 if no feed runs; `servers` says where each stands, `metrics_pages` where
    (HOST:PORT) those that say so have their own metrics. `held_limit`,
    `inflight_limit_bytes` and `window_clips` bound `held`, `inflight_bytes` and `in_flight`. Waits are counted while
    they last, by what is known until then; the present one lasts `waiting_ns`, 0 if nobody waits. `identity` is the
    run's name, data set and decoder, as far as they are known.
    """

    rank: int
    batches: int
    requested: int
    used: int
    in_flight: int
    held: int
    held_limit: int
    window_clips: int
    dropped: Mapping[str, int]
    requests: Mapping[tuple[str, str], int]
    retries: Mapping[str, int]
    dropped_replies: Mapping[str, int]
    hedged: int
    hedges: Mapping[str, int]
    picks: Mapping[str, int]
    shunned: Mapping[str, int]
    overdue: int
    stalls: int
    poisoned: Mapping[str, int]
    stood_in: int
    deadline_s: float
    durations: Mapping[str, Durations]
    received_bytes: int
    read_bytes: int
    inflight_bytes: int
    inflight_limit_bytes: int
    receive_cpu_s: float
    wait_ns: Mapping[str, int]
    blocked_ns: int
    waiting_ns: int
    servers: Mapping[str, str]
    metrics_pages: Mapping[str, str]
    identity: Mapping[str, str]

    @property
    def received(self) -> int:
        """Clips that arrived and were wanted."""
        return sum(count for (_, outcome), count in self.requests.items() if outcome == "ok")

    @property
    def wait_s(self) -> dict[str, float]:
        """Seconds that the consumer was blocked, by cause; in nanoseconds they sum exactly to `blocked_ns`."""
        return {cause: spent_ns * 1e-9 for cause, spent_ns in self.wait_ns.items()}

    @property
    def read_bytes_per_clip(self) -> float:
        """Bytes that servers read from storage for a received clip, on average; 0 before the first."""
        return self.read_bytes / self.received if self.received else 0.0

    @property
    def conserved(self) -> bool:
        """Whether requested = used + dropped + in flight + held."""
        return self.requested == self.used + sum(self.dropped.values()) + self.in_flight + self.held


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedState:
    """Where a running feed stands: what awaits an answer, what lies in undelivered batches, the limits of both, its
    servers' states and metrics pages, and the wait that its consumer is in.
    """

    in_flight: int = 0
    held: int = 0
    held_limit: int = 0
    window_clips: int = 0
    inflight_bytes: int = 0
    inflight_limit_bytes: int = 0
    deadline_s: float = 0.0
    servers: Mapping[str, str] = field(default_factory=dict)
    metrics_pages: Mapping[str, str] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(IDENTITY, ""))
    wait: Wait | None = None


def snapshot(ledger: Ledger, feed_state: FeedState, *, rank: int) -> FeedStats:
    """The counts as they are; the caller keeps their owners from writing meanwhile."""
    dropped: Counter[str] = Counter({"discarded": ledger.discarded} if ledger.discarded else {})
    for (_, outcome), count in ledger.outcomes.items():
        if outcome != "ok":
            dropped[outcome] += count
    wait = feed_state.wait
    waiting_ns = 0 if wait is None else wait.ended_ns - wait.began_ns
    return FeedStats(
        rank=rank,
        batches=ledger.batches,
        requested=ledger.requested,
        used=ledger.used,
        in_flight=feed_state.in_flight,
        held=feed_state.held,
        held_limit=feed_state.held_limit,
        window_clips=feed_state.window_clips,
        dropped=dict(dropped),
        requests=dict(ledger.outcomes),
        retries=dict(ledger.retries),
        dropped_replies=dict(ledger.dropped_replies),
        hedged=ledger.hedged,
        hedges=dict(ledger.hedges),
        picks=dict(ledger.picks),
        shunned=dict(ledger.shunned),
        overdue=ledger.overdue,
        stalls=ledger.stalls,
        poisoned=dict(ledger.poisoned),
        stood_in=ledger.stood_in,
        deadline_s=feed_state.deadline_s,
        durations={server: durations.copy() for server, durations in ledger.durations.items()},
        received_bytes=ledger.received_bytes,
        read_bytes=ledger.read_bytes,
        inflight_bytes=feed_state.inflight_bytes,
        inflight_limit_bytes=feed_state.inflight_limit_bytes,
        receive_cpu_s=ledger.receive_cpu_s,
        wait_ns=ledger.waits.shown_ns(wait),
        blocked_ns=ledger.waits.blocked_ns + waiting_ns,
        waiting_ns=waiting_ns,
        servers=dict(feed_state.servers),
        metrics_pages=dict(feed_state.metrics_pages),
        identity=dict(feed_state.identity),
    )
