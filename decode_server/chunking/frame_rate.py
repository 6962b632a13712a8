"""Timed frames to a constant frame rate, by showing what was on show; pure, knows no files and no encoders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

from decode_server.chunking.source import TimedFrame
from framefeed.errors import BadInput

_NTSC = {"23.976": Fraction(24000, 1001), "23.98": Fraction(24000, 1001), "29.97": Fraction(30000, 1001)}
_NTSC |= {"59.94": Fraction(60000, 1001), "119.88": Fraction(120000, 1001)}
_SLACK_FRAMES = Fraction(1, 8)  # containers round times, so a frame may be this early for its instant


def parse_rate(text: str) -> Fraction:
    """Frames a second from "30", "30000/1001" or "29.97", which means the former. Raises BadInput outside 1 to 240."""
    try:
        rate = _NTSC.get(text) or Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise BadInput(f"fps is {text!r}, wanted a number such as 30, 29.97 or 30000/1001") from None
    if not 1 <= rate <= 240:
        raise BadInput(f"fps is {text}, wanted 1 to 240")
    return rate


def at_rate(
    frames: Iterable[TimedFrame], *, ticks_per_s: int, source_fps: Fraction, fps: Fraction
) -> Iterator[TimedFrame]:
    """The frame on show at each n / fps, with times in ticks of 1 / fps.numerator s, which are exact.

    A frame is on show until the next; the last one, and the last before damage, for one frame of `source_fps`.
    """
    slack, hold = _SLACK_FRAMES / fps, 1 / source_fps
    shown: TimedFrame | None = None
    shown_s = Fraction(0)
    number = 0
    resumed = False
    for timed in frames:
        time_s = Fraction(timed.ticks, ticks_per_s)
        if shown is not None:
            until_s = min(time_s, shown_s + hold) if timed.resumed else time_s
            while number / fps < until_s - slack:
                yield replace(shown, ticks=number * fps.denominator, resumed=resumed)
                number, resumed = number + 1, False
        if timed.resumed:
            number, resumed = max(number, math.ceil((time_s - slack) * fps)), True
        shown, shown_s = timed, time_s
    while shown is not None and number / fps < shown_s + hold - slack:
        yield replace(shown, ticks=number * fps.denominator, resumed=resumed)
        number, resumed = number + 1, False
