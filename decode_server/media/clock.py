"""One rising clock from a stream's time stamps: restarts and wraps are joined, stamps that others contradict dropped,
pauses kept up to a bound. Pure; it knows ticks and packets in decode order, no files and no codecs.

A stamp is contradicted when the ones behind it go on as if it were not there: it leaps, and within LOOK_PACKETS the
clock leaps back. A clock that leaps and stays has been restarted (backwards) or has paused (forwards).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LOOK_PACKETS = 32
_SMALL_STEPS = 10  # a leap of fewer frames is the jitter of live recordings where frames are reordered
Ticks = int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The container's words about when one packet is decoded and its frame shows, in ticks."""

    dts: Ticks
    pts: Ticks
    duration: int
    key: bool
    discard: bool
    damaged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leap:
    """At a packet the clock moved by `by` ticks more than one frame, and what follows was moved back onto it. `joined`
    where it cannot be told whether what follows still belongs to what came before.
    """

    packet: int
    by: int
    joined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Times by packet in ticks, None for packets without one; `contradicted` are packets whose stamps were dropped,
    with how far ahead they were, `leaps` what was joined or cut out.
    """

    dts: list[Ticks]
    pts: list[Ticks]
    contradicted: dict[int, int]
    leaps: tuple[Leap, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRule:
    """`step` is one frame's time; forward leaps past `max_gap` are cut out. `reordered` streams show frames in another
    order than they decode. `joinable` containers can be joined end to end, so that a leap back is the seam of two;
    a leap ahead is in those that do not count their packets (`seams_ahead`), and where the count is wrong in others.
    """

    step: int
    max_gap: int
    reordered: bool
    joinable: bool
    seams_ahead: bool


def unroll(stamps: Sequence[Stamp], rule: ClockRule) -> Clock:
    """The stream's clock; linear in its packets."""
    told = _told(stamps, rule)
    contradicted: dict[int, int] = {}
    leaps: list[Leap] = []
    shifts: list[int] = []
    last: Ticks = None
    shift = 0
    number = 0
    while number < len(told):
        at = told[number]
        if at is None or number in contradicted:
            shifts.append(shift)
            number += 1
            continue
        leap = 0 if last is None else _leap(at + shift - last, _step_before(stamps, number, rule), rule)
        overlap = _overlap(stamps, number, shifts, rule) if leap <= 0 and rule.joinable else 0
        if overlap:
            leaps.append(Leap(packet=number, by=-overlap, joined=True))
            shift, last = _shift_behind(stamps, number, shifts, rule), None
        elif last is not None and _is_leap(leap, rule, is_key=stamps[number].key):
            back = _leaps_back(told, number, last - shift, rule.step)
            if back and not _is_joined_on(stamps, number, back, leap, rule):
                jitter = rule.reordered and abs(leap) <= _SMALL_STEPS * rule.step
                told_wrong = [n for n in range(number, back) if told[n] is not None]
                contradicted |= {} if jitter else dict.fromkeys(told_wrong, leap)
                if not jitter:
                    continue
            elif leap < 0 or leap > rule.max_gap:
                moved = _shift_behind(stamps, number, shifts, rule)
                leaps.append(Leap(packet=number, by=leap, joined=leap < 0 or _is_seam_ahead(stamps, number, rule)))
                shift = moved
                last = None
            elif _is_seam_ahead(stamps, number, rule):
                leaps.append(Leap(packet=number, by=0, joined=True))
        last = at + shift if last is None else max(last, at + shift)
        shifts.append(shift)
        number += 1
    lost = contradicted.keys()
    dts = [None if at is None or n in lost else at + shifts[n] for n, at in enumerate(told)]
    pts = [None if s.pts is None or n in lost else s.pts + shifts[n] for n, s in enumerate(stamps)]
    contradicted |= _ahead_of_all(pts, rule)
    return Clock(
        dts=dts,
        pts=[None if n in contradicted else at for n, at in enumerate(pts)],
        contradicted=contradicted,
        leaps=tuple(leaps),
    )


def _leap(moved: int, step: int, rule: ClockRule) -> int:
    """By how much more than a frame's time the clock has moved. One that rises has not gone back where nothing can be
    joined on: FFmpeg gives what an MP4's edit list shows the durations of other packets.
    """
    return moved - step if rule.joinable or moved <= 0 else max(moved - step, 0)


def _is_leap(leap: int, rule: ClockRule, *, is_key: bool) -> bool:
    """Whether the clock moves by more than reordering does; another recording begins with a key frame."""
    jitter = _SMALL_STEPS if rule.reordered else 2
    return leap < -(2 if is_key else jitter) * rule.step or leap > jitter * rule.step


def _is_seam_ahead(stamps: Sequence[Stamp], number: int, rule: ClockRule) -> bool:
    flagged = any(stamp.damaged for stamp in stamps[max(number - 2, 0) : number + 1])
    at = stamps[number].dts or 0
    restarts = any(stamp.dts is not None and stamp.dts < at for stamp in stamps[number + 1 : number + 4])
    return rule.seams_ahead or (
        rule.joinable and flagged and not restarts
    )  # the flag is for the restart, if there is one


def _is_joined_on(stamps: Sequence[Stamp], number: int, back: int, leap: int, rule: ClockRule) -> bool:
    """Whether another recording begins where the clock leaps, though it comes back at a packet `back`: with a key
    frame, and either more than one stamp leaps, or when its frame shows does not, as a wrong stamp would have it.
    """
    key = stamps[number]
    if not (rule.joinable and key.key):
        return False
    before = [stamp.pts for stamp in stamps[max(number - LOOK_PACKETS, 0) : number] if stamp.pts is not None]
    alike = key.pts is None or not before or abs(key.pts - max(before) - leap) <= _SMALL_STEPS * rule.step
    return back - number > 1 or not alike


def _step_before(stamps: Sequence[Stamp], number: int, rule: ClockRule) -> int:
    own = stamps[number - 1].duration
    return own if rule.step // 4 <= own <= 4 * rule.step else rule.step


def _leaps_back(told: Sequence[Ticks], number: int, last: int, step: int) -> int:
    """The first packet behind a leap where the clock leaps back to go on from `last` as if nothing had been, 0 if it
    does not.
    """
    leap = (told[number] or 0) - last
    before = told[number] or 0
    for later in range(number + 1, min(number + 1 + LOOK_PACKETS, len(told))):
        at = told[later]
        if at is None:
            continue
        returns = (before - at if leap > 0 else at - before) > abs(leap) // 2
        missed = (later - number + 1) * step  # how far the clock has gone on meanwhile
        if returns and missed // 4 < at - last <= 4 * missed:
            return later
        before = at
    return 0


def _overlap(stamps: Sequence[Stamp], number: int, shifts: Sequence[int], rule: ClockRule) -> int:
    """By how much a key frame would show before frames that are decoded before it, which only another recording's can:
    how little the clock leaps where one is joined on. 0 where it does not.
    """
    key = stamps[number]
    if not key.key or key.pts is None or not shifts:
        return 0
    behind = (_shift_behind(stamps, number, shifts, rule) - shifts[-1]) if number else 0
    return behind if rule.step <= behind <= LOOK_PACKETS * rule.step else 0


def _shift_behind(stamps: Sequence[Stamp], number: int, shifts: Sequence[int], rule: ClockRule) -> int:
    """What to add to stamps from a packet on, so that its first shown frame follows the last one shown before it."""
    before = [
        stamp.pts + shift
        for stamp, shift in zip(stamps[max(number - LOOK_PACKETS, 0) : number], shifts[-LOOK_PACKETS:], strict=False)
        if stamp.pts is not None
    ]
    if stamps[number].key and stamps[number].pts is not None:
        first = stamps[number].pts
    else:
        ahead = stamps[number : number + LOOK_PACKETS]
        first = min((stamp.pts for stamp in ahead if stamp.pts is not None), default=stamps[number].dts or 0)
    assert first is not None
    latest = max(before, default=(stamps[number - 1].dts or 0) + (shifts[-1] if shifts else 0))
    return latest + _step_before(stamps, number, rule) - first


def _told(stamps: Sequence[Stamp], rule: ClockRule) -> list[Ticks]:
    """The rising stamp of each packet; None for what an edit list leaves out, for there the clock runs on aside."""
    told = [
        None if stamp.discard else stamp.pts if stamp.dts is None and not rule.reordered else stamp.dts
        for stamp in stamps
    ]
    return told if any(at is not None for at in told) else [stamp.pts for stamp in stamps]


def _ahead_of_all(pts: Sequence[Ticks], rule: ClockRule) -> dict[int, int]:
    """Frames that would be shown behind many that are decoded after them, more than any codec reorders."""
    known = [(number, at) for number, at in enumerate(pts) if at is not None]
    if not rule.reordered or len(known) < 2 * LOOK_PACKETS:
        return {}
    numbers, times = np.array(known, np.int64).T
    later = np.lib.stride_tricks.sliding_window_view(times[LOOK_PACKETS:], LOOK_PACKETS // 2).max(axis=1)
    ahead = np.flatnonzero(times[: len(later)] > later + rule.step)
    return {int(numbers[n]): int(times[n] - later[n]) for n in ahead}
