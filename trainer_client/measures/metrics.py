"""The feed's counts in Prometheus form; it reads a snapshot when scraped and counts nothing itself.

One registry is passed in by whoever serves it. Names and labels: no file names, base units, `_total` on counters only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from trainer_client.measures.stats import DURATION_BOUNDS_S, FeedState, FeedStats, Ledger, snapshot


class FeedCollector(Collector):
    """Exports what `stats` returns at each scrape. A scrape blocks for as long as `stats` does."""

    def __init__(self, stats: Callable[[], FeedStats]) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        """The families' names, by which a registry refuses a second feed's."""
        return [*_families(snapshot(Ledger(), FeedState(), rank=0))]

    def collect(self) -> Iterable[Metric]:
        """The families with a snapshot's samples."""
        return [*_families(self._stats())]


def _families(stats: FeedStats) -> Iterator[Metric]:
    yield from _totals(stats)
    yield from _counts(stats)
    yield _durations(stats)
    yield from _gauges(stats)


def _totals(stats: FeedStats) -> Iterator[Metric]:
    rank = str(stats.rank)
    yield _counter(
        "trainer_data_wait_seconds",
        "Seconds that the consumer was blocked in next(loader), by cause.",
        labels=("rank", "cause"),
        values={(rank, cause): seconds for cause, seconds in stats.wait_s.items()},
    )
    for name, text, value in (
        ("trainer_clips", "Clips in batches that next(loader) delivered.", stats.used),
        ("trainer_batches", "Batches that next(loader) delivered.", stats.batches),
        ("client_requested", "Requests made: used (trainer_clips) + dropped + in flight + held.", stats.requested),
        ("client_hedged", "Requests that asked a second server for a clip in flight.", stats.hedged),
        ("client_stalls", "Standstills of stall_s that did not end the run.", stats.stalls),
        ("trainer_stand_ins", "Clips delivered in the place of samples that no server could give.", stats.stood_in),
        ("client_received_bytes", "Bytes of pixels received and used.", stats.received_bytes),
        ("client_read_bytes", "Bytes that servers read from storage for received clips.", stats.read_bytes),
    ):
        yield _counter(name, text, labels=("rank",), values={(rank,): value})
    cpu_text = "CPU seconds of the feed's thread."
    yield _counter("client_receive_cpu_seconds", cpu_text, labels=(), values={(): stats.receive_cpu_s})


def _counts(stats: FeedStats) -> Iterator[Metric]:
    yield _counter(
        "client_requests",
        "Finished requests by server and outcome: ok, or why the answer was not used.",
        labels=("server", "outcome"),
        values={key: float(count) for key, count in stats.requests.items()},
    )
    for name, text, label, counts in (
        ("client_dropped", "Requests that did not become data; received ones included.", "reason", stats.dropped),
        ("trainer_quarantined_samples", "Samples no server could give.", "reason", stats.poisoned),
        ("client_retries", "Clips asked for again.", "reason", stats.retries),
        ("client_dropped_replies", "Replies nobody needed or could read.", "reason", stats.dropped_replies),
        ("client_hedges", "Second requests that are over, by who gave the clip.", "winner", stats.hedges),
        ("client_picks", "Servers picked: a part's home, passed on by it, of two.", "choice", stats.picks),
    ):
        yield _counter(name, text, labels=(label,), values={(value,): count for value, count in counts.items()})


def _gauges(stats: FeedStats) -> Iterator[Metric]:
    rows: tuple[tuple[str, str, float], ...] = (
        ("client_inflight_requests", "Requests that await their answer.", stats.in_flight),
        ("client_inflight_bytes", "Bytes of clips asked for and not received.", stats.inflight_bytes),
        ("client_attempt_deadline_seconds", "What a server is given for a clip now.", stats.deadline_s),
        ("client_held_clips", "Clips received for batches that are not delivered yet.", stats.held),
    )
    for name, text, value in rows:
        gauge = GaugeMetricFamily(f"framefeed_{name}", text, labels=["rank"])
        gauge.add_metric([str(stats.rank)], value)
        yield gauge
    up_text = "1 for a server that takes requests, 0 for one that does not."
    servers = GaugeMetricFamily("framefeed_client_server_up", up_text, labels=["server"])
    for server, state in stats.servers.items():
        servers.add_metric([server], float(state == "up"))
    yield servers
    circuit_text = "1 for the state of each server's circuit breaker: closed, open or half_open."
    circuits = GaugeMetricFamily("framefeed_client_server_circuit", circuit_text, labels=["server", "circuit"])
    for server, circuit in stats.circuits.items():
        circuits.add_metric([server, circuit], 1.0)
    yield circuits


def _counter(
    name: str, text: str, *, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"framefeed_{name}", text, labels=list(labels))
    for label_values, value in values.items():
        family.add_metric(list(label_values), value)
    return family


def _durations(stats: FeedStats) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "framefeed_client_request_duration_seconds", "From sending a request to having its clip.", labels=["server"]
    )
    bounds = [*map(str, DURATION_BOUNDS_S), "+Inf"]
    for server, durations in stats.durations.items():
        buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
        family.add_metric([server], buckets=buckets, sum_value=durations.sum_s)
    return family
