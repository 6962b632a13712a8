"""Numbers as files of annotations write them: ASCII digits, as 12, -0.5 or 1e3. It knows no columns.

Python's own reading takes more: 1_0 for 10, digits of every script, inf and nan.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"-?\d+", re.ASCII)


def number_in(text: str) -> float:
    """The finite number that a text is. Raises ValueError."""
    stripped = text.strip()
    if not _NUMBER.fullmatch(stripped):
        raise ValueError(f"{text!r} is no number")
    return float(stripped)


def whole_in(text: str) -> int:
    """The whole number that a text is. Raises ValueError."""
    stripped = text.strip()
    if not _WHOLE.fullmatch(stripped):
        raise ValueError(f"{text!r} is no whole number")
    return int(stripped)
