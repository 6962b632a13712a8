"""Numbers as files of annotations have them: ASCII digits, as 12, -0.5 or 1e3, and Python's own. It knows no columns.

Python's own reading takes more: 1_0 for 10, digits of every script, inf and nan.
"""

from __future__ import annotations

import math
import re

from framefeed.show_value import show_value

CLASSES = 1 << 20
"""Class numbers are below: a model has an output for each, so one that is larger is a slip, or an id."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"-?\d+", re.ASCII)
_DIGITS = 18


def number_in(text: str) -> float:
    """The finite number that a text is. Raises ValueError."""
    stripped = text.strip()
    if not _NUMBER.fullmatch(stripped):
        raise ValueError(f"{show_value(text)} is no number")
    return float(stripped)


def whole_in(text: str) -> int:
    """The whole number that a text is. Raises ValueError."""
    stripped = text.strip()
    if not _WHOLE.fullmatch(stripped) or len(stripped) > _DIGITS:
        raise ValueError(f"{show_value(text)} is no whole number of at most {_DIGITS} digits")
    return int(stripped)


def class_in(text: str) -> int:
    """The class number that a text is. Raises ValueError for none, and for one that no model has."""
    digits = text.strip().lstrip("0") or "0"
    if not digits.isascii() or not digits.isdecimal() or len(digits) > len(str(CLASSES)) or int(digits) >= CLASSES:
        raise ValueError(f"class {show_value(text)} is unknown, wanted 0 to {CLASSES - 1}, or names of classes")
    return int(digits)


def seconds_in(value: object, name: str) -> float:
    """The finite seconds that a value is, a text or a number. Raises ValueError, by what the value is called."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{name} is {show_value(value)}, wanted seconds")
    try:
        number = number_in(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {show_value(value)}, wanted seconds")
    return number
