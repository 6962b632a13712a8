"""The name that was probably meant by one that is none; it knows no kind of names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_name(typed: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The one of `names` most like what was typed, whatever its capitals; empty where none is like it.

    `cutoff`: from 0, for whichever is nearest, to 1, for the same letters alone.
    """
    by_letters: dict[str, str] = {}
    for name in names:
        by_letters.setdefault(name.casefold(), name)
    near = difflib.get_close_matches(typed.casefold(), by_letters, n=1, cutoff=cutoff)
    return by_letters[near[0]] if near else ""
