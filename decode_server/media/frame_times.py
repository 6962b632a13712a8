"""When each packet's frame shows: as its container stores it, else in the order in which the codec puts frames out.

Pure. It believes the clock that it is given, and hides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from decode_server.media.clock import Clock, Ticks
from decode_server.media.demux import Row
from decode_server.media.frame_order import FrameOrder
from decode_server.media.stream_facts import StreamFacts

# Containers that store the time of every frame. Others (AVI, program streams) store none or some, and FFmpeg guesses.
TIMED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "flv", "asf"})

Times = np.ndarray[Any, np.dtype[np.int64]]


def times_are_stored(container: str, rows: Sequence[Row]) -> bool:
    """Whether the container stores the time of every frame."""
    return container in TIMED and all(row.pts is not None for row in rows)


def frame_times(
    rows: Sequence[Row], clock: Clock, order: FrameOrder | None, facts: StreamFacts, step: int
) -> Sequence[Ticks]:
    """When each packet's frame shows, None for one that shows nothing or at no time that can be believed."""
    if order is None:
        return clock.pts
    emitted = [number for number, _ in order.emitted]
    packed = any(row.kind is not None and row.kind.packed for row in rows)
    if times_are_stored(facts.container, rows) and not packed:
        believed = [number for number in emitted if clock.pts[number] is not None]
        stamps = sorted(at for at in (clock.pts[number] for number in believed) if at is not None)
        by_number: dict[int, Ticks] = dict(zip(believed, stamps, strict=True))
        by_number |= {number: clock.pts[number] for number in frameless(rows, order)}
        return [by_number.get(number) for number in range(len(rows))]
    slots = _slots(clock, len(rows), step)
    result: list[Ticks] = [None] * len(rows)
    for number, place in zip(emitted, _places(order, len(rows)), strict=True):
        result[number] = slots[place]
    return result


def frameless(rows: Sequence[Row], order: FrameOrder) -> list[int]:
    """Packets whose headers say that they show a frame, and that gave none: of those, silence is damage."""
    if any(row.kind is None or row.kind.packed or row.pts is None for row in rows):
        return []
    given = {number for number, _ in order.emitted}
    return [n for n, row in enumerate(rows) if row.kind and row.kind.shown and not row.discard and n not in given]


def _places(order: FrameOrder, packets: int) -> list[int]:
    """Which packet's place in time each frame takes: that of the one that it comes out with, less the codec's delay."""
    if len(order.emitted) == packets or not order.emitted:
        return list(range(len(order.emitted)))
    delay = order.emitted[0][1] - order.emitted[0][0]
    places = [max(at - delay, 0) for _, at in order.emitted]
    if len(set(places)) != len(places) or max(places) >= packets:
        return sorted(number for number, _ in order.emitted)
    return places


def _slots(clock: Clock, packets: int, step: int) -> list[int]:
    """A rising time for each packet: the container's, where each has one of its own, else one frame after the other."""
    for times in (clock.dts, clock.pts):
        known = sorted(at for at in times if at is not None)
        if len(set(known)) == packets:
            return known
    return [number * step for number in range(packets)]


def filled(times: Sequence[Ticks]) -> Times:
    """Times as an array, int64; a packet that shows nothing gets the latest time before it."""
    known = np.array([-(2**62) if at is None else at for at in times], np.int64)
    latest = np.maximum.accumulate(known)
    first = min((at for at in times if at is not None), default=0)
    return np.where([at is None for at in times], np.maximum(latest, first), known)
