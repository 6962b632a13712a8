"""Errors that one thread met and another raises; it knows no thread."""

from __future__ import annotations

import copy

from framefeed.errors import FramefeedError


def again(error: FramefeedError) -> FramefeedError:
    """The error to raise, now and at every call: its own would come to hold the frames of whoever called."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    return fresh


def in_words(error: BaseException) -> str:
    """An error's kind and text, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
