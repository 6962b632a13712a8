"""What became of a page's counters between two looks: rates, means and quantiles. Pure; it knows no metric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from framefeed.cli.top.metrics_page import LARGEST, Page


class Change:
    """One page at two times, `over_s` seconds apart."""

    def __init__(self, before: Page, page: Page, *, over_s: float) -> None:
        self.page, self.over_s = page, over_s
        self._before = before

    def increases(self, name: str, **having: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and increase of each counter of a name that has these labels: all it has, if it began again."""
        then = self._before.samples.get(name, {})
        for labels, value in self.page.samples.get(name, {}).items():
            if having.items() <= set(labels):
                old = then.get(labels, 0.0)
                yield dict(labels), min(max(value - old if value >= old else value, 0.0), LARGEST)

    def rate(self, name: str, **having: str) -> float:
        """Increase a second, summed."""
        return sum(increase for _, increase in self.increases(name, **having)) / self.over_s

    def rates_by(self, name: str, label: str, **having: str) -> dict[str, float]:
        """Increase a second, summed to one label."""
        rates: dict[str, float] = defaultdict(float)
        for labels, increase in self.increases(name, **having):
            rates[labels.get(label, "")] += increase / self.over_s
        return dict(rates)

    def means_by(self, name: str, label: str) -> dict[str, float]:
        """Mean of a histogram's values between the looks, by one label, where there were any."""
        sums, counts = self.rates_by(f"{name}_sum", label), self.rates_by(f"{name}_count", label)
        return {value: sums.get(value, 0.0) / count for value, count in counts.items() if count}

    def quantile(self, name: str, q: float) -> float:
        """Below which a share q of a histogram's values between the looks lie, even within a bucket; 0 without any."""
        buckets = sorted((_bound(le), rate) for le, rate in self.rates_by(f"{name}_bucket", "le").items())
        most = buckets[-1][1] if buckets else 0.0
        if not most:
            return 0.0
        low_s = below = 0.0
        for bound, rate in buckets:
            if bound == float("inf"):
                return low_s
            if rate >= q * most:
                return low_s + (bound - low_s) * ((q * most - below) / (rate - below) if rate > below else 1.0)
            low_s, below = bound, max(rate, below)
        return 0.0


def _bound(le: str) -> float:
    try:
        bound = float(le)
    except ValueError:
        return 0.0
    return bound if abs(bound) <= LARGEST else float("inf")
