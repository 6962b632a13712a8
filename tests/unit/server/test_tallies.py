"""Tallies say the same as prometheus_client's own counters and histograms do of the same values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from decode_server.service.tallies import TalliedHistogram, Tally

BUCKETS_S = (0.001, 0.5, 1.0, 30.0)
NAMES = st.sampled_from(["read", "decode"])
VALUES = st.floats(0, 100) | st.sampled_from(BUCKETS_S)


def pages(counter: type[Counter | Tally], counts: list[tuple[str, float]]) -> bytes:
    registry = CollectorRegistry()
    alone = counter("alone_total", "A number.", registry=registry)
    by_name = counter("named_total", "By name.", ["name"], registry=registry)
    number = alone.labels() if isinstance(alone, Tally) else alone
    for name, amount in counts:
        number.inc(amount)
        number.inc()
        by_name.labels(name).inc(amount)
    return generate_latest(registry)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=20))
def test_a_tally_renders_as_a_counter(counts: list[tuple[str, float]]) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    assert pages(Tally, counts) == pages(Counter, counts)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=20))
def test_a_tallied_histogram_renders_as_a_histogram(seen: list[tuple[str, float]]) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tallied = TalliedHistogram("took_seconds", "Time.", "stage", buckets=BUCKETS_S, registry=ours)
    histogram = Histogram("took_seconds", "Time.", ["stage"], buckets=BUCKETS_S, registry=theirs)
    for name, value in seen:
        tallied.labels(name).observe(value)
        histogram.labels(name).observe(value)
    assert generate_latest(ours) == generate_latest(theirs)
