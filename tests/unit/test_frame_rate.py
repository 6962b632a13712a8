"""A constant frame rate shows what was on show, invents nothing over damage, and keeps exact times."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_server.chunking.frame_rate import at_rate, parse_rate
from decode_server.chunking.source import TimedFrame
from framefeed.errors import BadInput

FRAME = av.VideoFrame(16, 16, "gray")


def _retimed(
    times_s: list[Fraction], source_fps: Fraction, fps: Fraction, lost: tuple[Fraction, Fraction] | None = None
) -> list[tuple[int, int]]:
    """(number of the source frame, slot) of what comes out, for source frames at `times_s`, of which those between two
    times are lost: the one before is on show until the first of them.
    """
    frames = []
    for number, (time_s, end_s) in enumerate(pairwise([*times_s, times_s[-1] + 1 / source_fps])):
        frame = av.VideoFrame(16, 16, "gray")
        frame.pts = number
        until_s = lost[0] if lost and time_s < lost[0] < end_s else end_s
        frames.append(TimedFrame(frame=frame, ticks=int(time_s * 90_000), end_ticks=int(until_s * 90_000)))
    out = at_rate(frames, ticks_per_s=90_000, fps=fps)
    return [(timed.frame.pts or 0, timed.ticks // fps.denominator) for timed in out]


def test_the_same_rate_keeps_every_frame_even_where_the_container_rounds_times() -> None:
    times_s = [Fraction(round(n * 1000 / 30), 1000) for n in range(50)]
    assert _retimed(times_s, Fraction(30), Fraction(30)) == [(n, n) for n in range(50)]


def test_half_the_rate_keeps_every_second_frame_and_twice_the_rate_shows_each_twice() -> None:
    times_s = [Fraction(n, 60) for n in range(40)]
    assert _retimed(times_s, Fraction(60), Fraction(30)) == [(2 * n, n) for n in range(20)]
    times_s = [Fraction(n, 15) for n in range(10)]
    assert _retimed(times_s, Fraction(15), Fraction(30)) == [(n // 2, n) for n in range(20)]


def test_a_pause_holds_its_frame_but_damage_leaves_a_gap() -> None:
    times_s = [Fraction(0), Fraction(1, 10), Fraction(8, 10)]
    assert _retimed(times_s, Fraction(10), Fraction(10)) == [(0, 0), *((1, n) for n in range(1, 8)), (2, 8)]
    lost = (Fraction(2, 10), Fraction(8, 10))
    assert _retimed(times_s, Fraction(10), Fraction(10), lost=lost) == [(0, 0), (1, 1), (2, 8)]


def test_a_long_pause_is_given_once_a_second_after_ten() -> None:
    out = _retimed([Fraction(0), Fraction(100)], Fraction(30), Fraction(30))
    assert [slot for _, slot in out] == [*range(300), *range(300, 3000, 30), 3000]
    assert [number for number, _ in out] == [0] * 390 + [1]


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=60), st.sampled_from(["24", "29.97", "30", "59.94"]))
def test_each_slot_is_filled_once_with_the_frame_on_show(steps: list[int], rate: str) -> None:
    fps = parse_rate(rate)
    times_s = [Fraction(sum(steps[:n]), 90_000) for n in range(len(steps))]
    out = _retimed(times_s, Fraction(25), fps)
    assert [slot for _, slot in out] == list(range(len(out)))
    for (number, slot), _ in pairwise([*out, (0, 0)]):
        instant_s = slot / fps
        assert times_s[number] <= instant_s + Fraction(1, 8) / fps
        if number + 1 < len(times_s):
            assert instant_s < times_s[number + 1]


@pytest.mark.parametrize("text", ["0", "-3", "fast", "1/0", "241"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="fps is"):
        parse_rate(text)


def test_ntsc_rates_are_exact() -> None:
    assert parse_rate("29.97") == parse_rate("30000/1001") == Fraction(30000, 1001)
