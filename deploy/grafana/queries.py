"""Expressions that panels share; knows no metric."""

from __future__ import annotations

INTERVAL = "[$__rate_interval]"


def rate(metric: str, by: str) -> str:
    """A counter's increase a second, summed to some labels."""
    return f"sum by ({by}) (rate({metric}{INTERVAL}))"


def p99(metric: str, by: str) -> str:
    """What 99 % of a histogram's values in the interval are below; nothing, and not NaN, where there were none."""
    buckets = f"histogram_quantile(0.99, {rate(metric + '_bucket', by + ', le')})"
    return f"({buckets}) and on ({by}) ({rate(metric + '_count', by)} > 0)"


def buckets(metric: str, having: str) -> str:
    """What a heat map draws: how many of a histogram's values fell into each bucket, of those with some labels."""
    return f"sum by (le) (increase({metric}_bucket{{{having}}}{INTERVAL}))"
