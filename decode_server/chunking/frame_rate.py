"""Timed frames to a constant frame rate, by showing what was on show; pure, knows no files and no encoders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from decode_server.chunking.source import TimedFrame
from framefeed.errors import BadInput
from framefeed.show_value import show_value

_NTSC = {"23.976": Fraction(24000, 1001), "23.98": Fraction(24000, 1001), "29.97": Fraction(30000, 1001)}
_NTSC |= {"59.94": Fraction(60000, 1001), "119.88": Fraction(120000, 1001)}
_SLACK_FRAMES = Fraction(1, 8)  # containers round times, so a frame may be this early for its instant
_STEADY_FRAMES = 300  # so many times one frame is given before it is given once a second


def parse_rate(text: str) -> Fraction:
    """Frames a second from "30", "30000/1001" or "29.97", which means the former. Raises BadInput outside 1 to 240."""
    try:
        rate = _NTSC.get(text) or Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise BadInput(f"--fps is {show_value(text)}, wanted a number such as 30, 29.97 or 30000/1001") from None
    if not 1 <= rate <= 240:
        raise BadInput(f"--fps is {text}, wanted 1 to 240")
    return rate


def at_rate(frames: Iterable[TimedFrame], *, ticks_per_s: int, fps: Fraction) -> Iterator[TimedFrame]:
    """The frame on show at each n / fps, with times in ticks of 1 / fps.numerator s, which are exact.

    Where frames are left out nothing is on show. Of a long pause the rest is given once a second: what is on show is
    the same, and the chunks stay a small multiple of their source.
    """
    slack, step = _SLACK_FRAMES / fps, fps.denominator
    rest = max(int(fps), 1)
    number = 0
    for timed in frames:
        begin_s, end_s = Fraction(timed.ticks, ticks_per_s), Fraction(timed.end_ticks, ticks_per_s)
        first = number = max(number, math.ceil((begin_s - slack) * fps))
        end = math.ceil((end_s - slack) * fps)
        while number < end:
            until = min(number + (1 if number - first < _STEADY_FRAMES else rest), end)
            yield replace(timed, ticks=number * step, end_ticks=until * step)
            number = until
