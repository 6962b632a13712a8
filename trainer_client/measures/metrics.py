"""The feed's counts in Prometheus form; it reads a snapshot when scraped and counts nothing itself.

One registry is passed in by whoever serves it. Names and labels: no file names, base units, `_total` on counters only.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from framefeed.errors import WIRE_ERRORS, Permanent
from trainer_client.measures.stats import DURATION_BOUNDS_S, IDENTITY, Durations, FeedState, FeedStats, Ledger, snapshot

_VERSION = version("framefeed")
# Shown from the start at 0: Prometheus sees no increase of a series that begins with its first event.
_OUTCOMES = ("ok", *WIRE_ERRORS, "unsent", "superseded", "closed")
_DROPPED = (*_OUTCOMES[1:], "discarded")
_RETRIED = (*WIRE_ERRORS, "unsent")
_POISONED = (Permanent.code, *WIRE_ERRORS)
_DROPPED_REPLIES = ("late", "duplicate", "unknown", "malformed")
_HEDGE_WINNERS = ("hedge", "first", "neither")
_PICK_CHOICES = ("home", "passed_on", "two_choices")
_SHUN_REASONS = ("dataset", "decoder", "version", "room")


class FeedCollector(Collector):
    """Exports what `stats` returns at each scrape, nothing when it returns None: then the feed is gone.

    A scrape blocks for as long as `stats` does. With `per_server` the durations of requests are a histogram of each
    server, else one of all.
    """

    def __init__(self, stats: Callable[[], FeedStats | None], *, per_server: bool = False) -> None:
        self._stats = stats
        self._per_server = per_server

    def register(self, registry: CollectorRegistry) -> None:
        """Have the registry ask it, in place of a feed's that is gone. Raises ValueError beside one that is not."""
        before = _registered.get(registry)
        if before is not None and before._stats() is None:
            before.unregister(registry)
        registry.register(self)
        _registered[registry] = self

    def unregister(self, registry: CollectorRegistry) -> None:
        """Have the registry ask it no more; it need not have."""
        with contextlib.suppress(KeyError):
            registry.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """The families' names, by which a registry refuses a second feed's."""
        return [*self._families(snapshot(Ledger(), FeedState(), rank=0))]

    def collect(self) -> Iterable[Metric]:
        """The families with a snapshot's samples."""
        stats = self._stats()
        return [] if stats is None else [*self._families(stats)]

    def _families(self, stats: FeedStats) -> Iterator[Metric]:
        yield from _totals(stats)
        yield from _counts(stats)
        yield _durations_of_each(stats) if self._per_server else _durations(stats)
        yield from _gauges(stats)
        yield from _servers(stats)


_registered: weakref.WeakKeyDictionary[CollectorRegistry, FeedCollector] = weakref.WeakKeyDictionary()


def _totals(stats: FeedStats) -> Iterator[Metric]:
    rank = str(stats.rank)
    yield _counter(
        "trainer_data_wait_seconds",
        "Seconds that the consumer was blocked in next(loader), by cause; the present wait as it is known now.",
        labels=("rank", "cause"),
        values={(rank, cause): seconds for cause, seconds in stats.wait_s.items()},
    )
    for name, text, value in (
        ("trainer_clips", "Clips in batches that next(loader) delivered.", stats.used),
        ("trainer_batches", "Batches that next(loader) delivered.", stats.batches),
        ("client_requested", "Requests made: used (trainer_clips) + dropped + in flight + held.", stats.requested),
        ("client_hedged", "Requests that asked a second server for a clip in flight.", stats.hedged),
        ("client_overdue", "Requests that were not answered within their deadline.", stats.overdue),
        ("client_stalls", "Standstills of stall_s that did not end the run.", stats.stalls),
        ("trainer_stand_ins", "Clips delivered in the place of samples that no server could give.", stats.stood_in),
        ("client_received_bytes", "Bytes of pixels received and used.", stats.received_bytes),
        ("client_read_bytes", "Bytes that servers read from storage for received clips.", stats.read_bytes),
        ("client_receive_cpu_seconds", "CPU seconds of the feed's thread.", stats.receive_cpu_s),
    ):
        yield _counter(name, text, labels=("rank",), values={(rank,): value})


def _counts(stats: FeedStats) -> Iterator[Metric]:
    rank = str(stats.rank)
    yield _counter(
        "client_requests",
        "Finished requests by server and outcome: ok, or why the answer was not used.",
        labels=("rank", "server", "outcome"),
        values={
            **{(rank, server, outcome): 0.0 for server in stats.servers for outcome in _OUTCOMES},
            **{(rank, *key): float(count) for key, count in stats.requests.items()},
        },
    )
    dropped, pick = (
        "Requests that did not become data; received ones included.",
        "a part's home, passed on by it, of two",
    )
    for name, text, label, counts, known in (
        ("client_dropped", dropped, "reason", stats.dropped, _DROPPED),
        ("trainer_quarantined_samples", "Samples no server could give.", "reason", stats.poisoned, _POISONED),
        ("client_retries", "Clips asked for again.", "reason", stats.retries, _RETRIED),
        (
            "client_dropped_replies",
            "Replies not needed or readable.",
            "reason",
            stats.dropped_replies,
            _DROPPED_REPLIES,
        ),
        ("client_hedges", "Second requests that are over, by who gave it.", "winner", stats.hedges, _HEDGE_WINNERS),
        ("client_picks", f"Servers picked: {pick}.", "choice", stats.picks, _PICK_CHOICES),
        ("client_shunned_servers", "Servers that do not fit the run.", "reason", stats.shunned, _SHUN_REASONS),
    ):
        yield _counter(
            name,
            text,
            labels=("rank", label),
            values={(rank, value): float(count) for value, count in (dict.fromkeys(known, 0) | dict(counts)).items()},
        )


def _gauges(stats: FeedStats) -> Iterator[Metric]:
    rows: tuple[tuple[str, str, float], ...] = (
        (
            "trainer_waiting_seconds",
            "For how long next(loader) is blocked now; 0 if it is not.",
            stats.waiting_ns * 1e-9,
        ),
        ("client_inflight_requests", "Requests that await their answer.", stats.in_flight),
        ("client_window_requests", "How many the servers that are up may be sent at once.", stats.window_clips),
        ("client_inflight_bytes", "Bytes of clips asked for and not received.", stats.inflight_bytes),
        ("client_inflight_limit_bytes", "Bound on them: inflight_bytes.", stats.inflight_limit_bytes),
        ("client_attempt_deadline_seconds", "When a second server is asked for a clip now.", stats.deadline_s),
        ("client_held_clips", "Clips received for batches that are not delivered yet.", stats.held),
        ("client_held_limit_clips", "Bound on them: clips of the batches that are prefetched.", stats.held_limit),
    )
    for name, text, value in rows:
        yield _gauge(name, text, labels=("rank",), values={(str(stats.rank),): value})


def _servers(stats: FeedStats) -> Iterator[Metric]:
    rank = str(stats.rank)
    yield _gauge(
        "client_server_up",
        "1 for a server that takes requests, 0 for one that does not.",
        labels=("rank", "server"),
        values={(rank, server): float(state in ("up", "trial")) for server, state in stats.servers.items()},
    )
    yield _gauge(
        "client_server_state",
        "1 for where each server stands: offline, probing, trial, up, draining or shunned.",
        labels=("rank", "server", "state"),
        values={(rank, server, state): 1.0 for server, state in stats.servers.items()},
    )
    yield _gauge(
        "client_server_page_info",
        "Where (HOST:PORT) a server said that its own metrics are; always 1.",
        labels=("rank", "server", "page"),
        values={(rank, server, page): 1.0 for server, page in stats.metrics_pages.items()},
    )
    yield _gauge(
        "client_build_info",
        "What this client is and what it reads; always 1.",
        labels=("rank", "version", *IDENTITY),
        values={(rank, _VERSION, *(stats.identity[name] for name in IDENTITY)): 1.0},
    )


def _counter(
    name: str, text: str, *, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"framefeed_{name}", text, labels=list(labels))
    for label_values, value in values.items():
        family.add_metric(list(label_values), value)
    return family


def _gauge(
    name: str, text: str, *, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"framefeed_{name}", text, labels=list(labels))
    for label_values, value in values.items():
        family.add_metric(list(label_values), value)
    return family


def _durations(stats: FeedStats) -> HistogramMetricFamily:
    whole = Durations()
    for durations in stats.durations.values():
        whole.counts = [a + b for a, b in zip(whole.counts, durations.counts, strict=True)]
        whole.sum_s += durations.sum_s
    return _histogram(("rank",), {(str(stats.rank),): whole})


def _durations_of_each(stats: FeedStats) -> HistogramMetricFamily:
    rank = str(stats.rank)
    return _histogram(("rank", "server"), {(rank, server): each for server, each in stats.durations.items()})


def _histogram(labels: Sequence[str], values: Mapping[tuple[str, ...], Durations]) -> HistogramMetricFamily:
    text = "From sending a request to having its clip."
    family = HistogramMetricFamily("framefeed_client_request_duration_seconds", text, labels=list(labels))
    bounds = [*map(str, DURATION_BOUNDS_S), "+Inf"]
    for label_values, durations in values.items():
        buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
        family.add_metric(list(label_values), buckets=buckets, sum_value=durations.sum_s)
    return family
