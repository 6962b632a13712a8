"""Checks of values that a file brought along: numbers within a range, texts of a bounded length. Knows no files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from framefeed.show_value import show_value

MAX_NAME = 4096  # characters: as many as a path may have bytes
MAX_BYTES = 1 << 62  # of any file, or an offset in one: sums of two are still of 64 bits
MAX_SECONDS = 1e9  # of any video: 31 years


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless it is a number from `low` to `high`; no infinity and no NaN is."""
    if not low <= value <= high:
        raise ValueError(f"{what} is {show_value(value)}, wanted {show_value(low)} to {show_value(high)}")


def check_ranges(what: str, values: Sequence[float], low: float, high: float) -> None:
    """The same for each of many, as fast as Python's own functions are."""
    try:
        finite = all(map(math.isfinite, values))
    except OverflowError:  # an integer beyond all floats
        finite = False
    if not finite:
        raise ValueError(f"{what} has a value that is not finite")
    if values:
        check_range(f"the least of {what}", min(values), low, high)
        check_range(f"the greatest of {what}", max(values), low, high)


def check_text(what: str, text: str, *, most: int = MAX_NAME, least: int = 0) -> None:
    """Raises ValueError unless it has `least` to `most` characters, none of them NUL, and can be written as UTF-8."""
    if not least <= len(text) <= most:
        raise ValueError(f"{what} has {len(text)} characters, wanted {least} to {most}")
    if "\0" in text:
        raise ValueError(f"{what} has a NUL in it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{what} is no UTF-8") from None
