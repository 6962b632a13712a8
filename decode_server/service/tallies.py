"""Counters and histograms that one thread writes for little, and Prometheus' registry reads. It knows no metric.

A count of prometheus_client takes 1 to 4 µs, for it may be written by any thread and any process; a front makes fifteen
of them a clip. These are plain numbers, under a lock of their owner's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Count:
    """One number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""
        self.value += amount


class Tally(Collector):
    """A counter: one number, or one for each set of values of its labels."""

    def __init__(self, name: str, text: str, label_names: Sequence[str] = (), *, registry: CollectorRegistry) -> None:
        self._name, self._text, self._label_names = name, text, label_names
        self._counts: dict[tuple[str, ...], Count] = {}
        if not label_names:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The number of these values, made at the first call: keep it where it is needed often."""
        count = self._counts.get(values)
        if count is None:
            assert len(values) == len(self._label_names), f"{self._name}: {len(values)} values of labels"
            count = self._counts[values] = Count()
        return count

    def describe(self) -> Iterator[CounterMetricFamily]:
        """See Collector: what a registry asks before it takes one in."""
        yield CounterMetricFamily(self._name, self._text, labels=self._label_names)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See Collector."""
        family = CounterMetricFamily(self._name, self._text, labels=self._label_names)
        for values, count in self._counts.items():
            family.add_metric(values, count.value)
        yield family


class Distribution:
    """How many values fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one of what is above them all
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value in the lowest bucket whose bound is not below it."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class TalliedHistogram(Collector):
    """A histogram with one label, and a distribution for each value of that."""

    def __init__(
        self, name: str, text: str, label_name: str, *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._label_name, self._buckets = name, text, label_name, tuple(buckets)
        self._distributions: dict[str, Distribution] = {}
        registry.register(self)

    def labels(self, value: str) -> Distribution:
        """The distribution of this value, made at the first call."""
        return self._distributions.setdefault(value, Distribution(self._buckets))

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """See Collector."""
        yield HistogramMetricFamily(self._name, self._text, labels=(self._label_name,))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """See Collector."""
        family = HistogramMetricFamily(self._name, self._text, labels=(self._label_name,))
        bounds = [str(floatToGoString(bound)) for bound in (*self._buckets, float("inf"))]  # type: ignore[no-untyped-call]
        for value, found in self._distributions.items():
            family.add_metric((value,), list(zip(bounds, accumulate(found.counts), strict=True)), found.total)
        yield family
