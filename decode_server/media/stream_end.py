"""Where a recording ends in earnest: before the first frame, among its last, that is lost or missing.

Frames are stored in the order in which they decode. A file that is cut off, or another recording that is joined onto
one that was, may end with frames that show behind others which never came: these would leave a hole in which the frame
before stays on show. Pure; it decides about the last frames of each recording of a timeline, and of no others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from decode_server.media.frame_times import Times
from decode_server.media.media_use import Loss
from decode_server.media.packet_flags import Flags
from decode_server.media.packet_index import DAMAGED, HIDDEN
from decode_server.media.timeline import Mask, Timeline
from framefeed.errors import CorruptMedia

_HOLE_STEPS = 1.75  # a step between frames from here on has room for another frame; live clocks jitter by less
_DAMAGED = "damaged in its file"
_FEW_STEPS = 8
_REGULAR = 0.99  # so many of the steps must have no such room for one that has to be a hole
_CUT = "cut off: frames that show before its last ones are missing"
_JOINED = "frames that show before the last ones are missing where another recording is joined on"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """From frame `place` of `Timeline.shown` on nothing of a recording is used, from `pts` on nothing is on show."""

    place: int
    pts: int
    reason: str


def ended(timeline: Timeline) -> Timeline:
    """The timeline without what is lost at its end or missing at the end of a recording in it, which are named as
    losses; what was timed on from such an end follows the last frame that is used.

    Raises CorruptMedia where no frame is left.
    """
    bounds = [0, *timeline.seams, len(timeline.rows)]
    for start, stop in reversed(list(pairwise(bounds))):
        shown, lost = timeline.shown, timeline.lost
        last = not (shown >= stop).any()
        if last and timeline.complete and not lost.any():
            continue
        own = np.flatnonzero((shown >= start) & (shown < stop))
        cut = _cut(timeline, own, lost[own], last=last) if len(own) else None
        if cut is not None:
            timeline = _ended_at(timeline, cut) if last else _joined_at(timeline, cut, own, stop)
    return _end_named(timeline)


def _end_named(timeline: Timeline) -> Timeline:
    """With a loss at its end if its last packet is damaged and shows no frame."""
    frameless = timeline.flags[-1] & HIDDEN and not timeline.rows[-1].discard
    named = any(loss.end_s is None for loss in timeline.losses)
    if named or not (frameless and timeline.flags[-1] & DAMAGED):
        return timeline
    loss = Loss(start_s=timeline.second_of(timeline.end), end_s=None, reason=_DAMAGED)
    return replace(timeline, losses=(*timeline.losses, loss))


def _cut(timeline: Timeline, own: Times, lost: Mask, *, last: bool) -> _Cut | None:
    """Where a recording ends, of whose frames these are the places; None where that is behind its last one."""
    packets = timeline.shown[own]
    pts, places = timeline.pts[packets], np.arange(len(own))
    depth = int((places - np.argsort(np.argsort(packets))).max())  # so many frames show before one decoded before them
    if depth and len(own) <= 2 * _FEW_STEPS:  # so few may not show it
        depth = max(depth, _FEW_STEPS)
    tail = places >= len(own) - depth - 1
    step = max(int(np.median(np.diff(pts))), 1) if len(own) > _FEW_STEPS else timeline.step
    holes = _holes(pts, step, depth, proven=bool(lost[tail].any()) or (last and timeline.cut_off))
    first = len(own)
    if not (last and timeline.complete):
        found = np.flatnonzero(holes | (lost & tail & last))
        first = int(found[0]) if len(found) else first
    while last and first and lost[first - 1]:
        first -= 1
    if first == len(own) or not (first or last):
        return None
    ends = int(pts[first])
    if first and depth and ends - int(pts[first - 1]) >= _HOLE_STEPS * step:
        ends = int(pts[first - 1]) + step
    reason = _DAMAGED if lost[first] else _CUT if last else _JOINED
    return _Cut(place=int(own[first]), pts=ends, reason=reason)


def _holes(pts: Times, step: int, depth: int, *, proven: bool) -> Mask:
    """Before which of the last frames others are missing: no more than show behind one that is decoded before them
    (`depth`), in a stream of regular steps unless it is `proven` that frames are lost.
    """
    steps = np.diff(pts)
    wide = steps >= _HOLE_STEPS * step
    body = wide[: max(len(wide) - depth, 0)]
    regular = len(body) >= _FEW_STEPS and body.mean() <= 1 - _REGULAR
    holes = np.zeros(len(pts), np.bool_)
    if depth and (proven or regular):
        holes[1:] = wide & (proven | (steps <= (depth + 1.5) * step))
        holes[: max(len(pts) - depth, 0)] = False
    return holes


def _ended_at(timeline: Timeline, cut: _Cut) -> Timeline:
    if not cut.place:
        raise CorruptMedia(f"no frame of it decodes: {cut.reason}")
    at_s = timeline.second_of(cut.pts)
    open_ended = [loss for loss in timeline.losses if loss.end_s is None]
    others = [loss for loss in timeline.losses if loss.end_s is not None and loss.start_s < at_s]
    reason = open_ended[0].reason if open_ended else cut.reason
    return replace(
        timeline,
        flags=_hidden(timeline, timeline.shown[cut.place :]),
        end=cut.pts,
        losses=(*others, Loss(start_s=at_s, end_s=None, reason=reason)),
        complete=False,
        cut_off=True,
    )


def _joined_at(timeline: Timeline, cut: _Cut, own: Times, stop: int) -> Timeline:
    """With the recording from packet `stop` on joined on where the one before it ends."""
    pts, behind = timeline.pts, timeline.shown[timeline.shown >= stop]
    flags = _hidden(timeline, timeline.shown[own[own >= cut.place]])
    at_s = timeline.second_of(cut.pts)
    follows = int(pts[behind[0]])
    if _offset(timeline, int(behind[0])) == _offset(timeline, int(timeline.shown[cut.place])):  # one clock for both
        loss = Loss(start_s=at_s, end_s=timeline.second_of(follows), reason=cut.reason)
        return replace(timeline, flags=flags, losses=(*timeline.losses, loss))
    by = follows - cut.pts
    by_s = float(by * timeline.time_base)
    moved = [_earlier(loss, by_s) if loss.start_s > at_s else loss for loss in timeline.losses]
    pts = np.concatenate([pts[:stop], pts[stop:] - by])
    loss = Loss(start_s=at_s, end_s=at_s, reason=cut.reason)
    return replace(timeline, flags=flags, pts=pts, end=timeline.end - by, losses=(*moved, loss))


def _hidden(timeline: Timeline, packets: Times) -> Flags:
    flags = timeline.flags.copy()
    flags[packets] |= HIDDEN
    return flags


def _offset(timeline: Timeline, packet: int) -> int | None:
    """By how much a frame's time differs from its packet's stamp."""
    stamp = timeline.rows[packet].pts
    return None if stamp is None else int(timeline.pts[packet]) - stamp


def _earlier(loss: Loss, by_s: float) -> Loss:
    end_s = None if loss.end_s is None else round(loss.end_s - by_s, 6)
    return replace(loss, start_s=round(loss.start_s - by_s, 6), end_s=end_s)
