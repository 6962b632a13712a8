"""Numbers for people: shares, rates, times and counts in a few characters. It knows no metric."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share of 1, such as 4.2 % or 93 %."""
    hundredths = 100 * share
    return f"{hundredths:.1f} %" if 0 < hundredths < 9.95 else f"{hundredths:.0f} %"


def count_a_second(number: float) -> str:
    """A rate in at most five characters."""
    if number < 9.95:
        return f"{number:.1f}"
    return f"{number:.0f}" if number < 99_999.5 else f"{number:.0e}"


def show_rate(clips_s: float | None) -> str:
    """Clips a second."""
    return "unknown" if clips_s is None else f"{count_a_second(clips_s)} clips/s"


def show_time(seconds: float) -> str:
    """A time, in the unit that suits it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1.0:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 1e5 else f"{seconds:.0e} s"


def several(count: int, noun: str) -> str:
    """1 socket, 2 sockets."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
