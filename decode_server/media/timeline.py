"""The one timeline of a file: which packets make frames, when each is on show and for how long, and what cannot be used
and why. Index, chunk, verify and show go by it; nothing else decides times.

Pure: it is built from what was demuxed and, where the container does not say when frames show, from the order in which
the codec puts them out. It opens no files and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from decode_server.media.clock import LOOK_PACKETS, Clock, ClockRule, Leap, Stamp, unroll
from decode_server.media.demux import Demuxed, Row
from decode_server.media.frame_order import FrameOrder
from decode_server.media.frame_times import TIMED, Times, filled, frame_times, frameless, times_are_stored
from decode_server.media.lost_frames import lost_frames, lost_stretches
from decode_server.media.media_use import Loss, MediaUse, joined
from decode_server.media.packet_flags import Flags, packet_flags, undecodable
from decode_server.media.packet_index import DAMAGED, HIDDEN, KEY
from decode_server.media.picture import SourcePicture
from decode_server.media.stream_facts import StreamFacts
from framefeed.errors import CorruptMedia
from framefeed.show_value import show_bytes

DEFAULT_MAX_GAP_S = 300.0
_JOINABLE = frozenset({"mpegts", "mpeg", "flv", "h264", "hevc", "mpegvideo", "m4v", "dv", "obu", "mjpeg"})
_UNCOUNTED = frozenset({"mpeg", "mpegvideo"})
_END_TOLERANCE_S = 0.5
_DAMAGED = "damaged in its file"
_MOST_LINES = 8  # of one kind; more are told in one

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Packets in decode order, `flags` and times `pts` (packets,) of each in units of `time_base`, rising as frames
    show; `end` is when the last shown frame ends, in the same. `pictures` are the packets at which the kind of picture
    changes, `seams` those at which another recording may begin; from `moved_from_s` on times are not the file's own.
    `losses` are stretches of which frames are left out before anything is decoded; `notes` are lines on what was put
    right. `late` counts frames that share their time with the one before and are left out, `headless` packets that no
    key frame precedes.
    """

    rows: Sequence[Row]
    flags: Flags
    pts: Times
    end: int
    time_base: Fraction
    pictures: dict[int, SourcePicture]
    losses: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()
    late: int = 0
    headless: int = 0
    seams: tuple[int, ...] = ()
    moved_from_s: float | None = None
    step: int = 1
    complete: bool = False
    cut_off: bool = False

    @cached_property
    def breaks(self) -> frozenset[int]:
        """As `stream_breaks`."""
        return _breaks(self.rows, self.seams)

    def doubtful(self, *, at_keys: bool) -> set[int]:
        """Packets that the container calls damaged, perhaps only because another recording is joined on behind them: at
        a seam of the clock and, if `at_keys`, before key frames.
        """
        joints = set(self.seams) | set(np.flatnonzero(self.flags & KEY).tolist() if at_keys else ())
        flagged = np.flatnonzero(self.flags & DAMAGED).tolist()
        return {n for n in flagged if self.rows[n].damaged and joints & {n, n + 1, n + 2, len(self.rows)}}

    @cached_property
    def shown(self) -> Times:
        """Packets, int64 (frames,), in the order in which their frames show."""
        visible = np.flatnonzero((self.flags & HIDDEN) == 0)
        return visible[np.argsort(self.pts[visible], kind="stable")]

    @cached_property
    def ends(self) -> Times:
        """When each frame of `shown` stops being on show, int64 (frames,)."""
        return np.append(self.pts[self.shown][1:], self.end)

    @property
    def origin(self) -> int:
        """When the first frame shows."""
        return int(self.pts[self.shown[0]])

    def second(self, packet: int) -> float:
        """When a packet's frame shows, in seconds from the first frame."""
        return float((int(self.pts[packet]) - self.origin) * self.time_base)

    def second_of(self, pts: int) -> float:
        """A time in ticks as seconds from the first frame, to the microsecond."""
        return round(float((pts - self.origin) * self.time_base), 6)

    def picture(self, packet: int) -> SourcePicture:
        """The kind of picture of a packet's frame."""
        return self.pictures[max(number for number in self.pictures if number <= packet)]

    @cached_property
    def main_picture(self) -> SourcePicture:
        """The kind that is on show for longest."""
        shown_for: dict[SourcePicture, int] = {}
        starts = sorted(self.pictures)
        kinds = np.searchsorted(starts, self.shown, side="right") - 1
        for kind, start in enumerate(starts):
            ticks = int((self.ends - self.pts[self.shown])[kinds == kind].sum())
            picture = self.pictures[start]
            shown_for[picture] = shown_for.get(picture, 0) + ticks
        return max(shown_for, key=lambda picture: shown_for[picture])

    @cached_property
    def lost(self) -> Mask:
        """Which frames of `shown` cannot be decoded for damage, bool (frames,)."""
        return lost_frames(self.flags, self.pts, self.shown)

    @cached_property
    def damaged(self) -> tuple[Loss, ...]:
        """The stretches that cannot be decoded for damage, and what shows no frame for it."""
        found: list[Loss] = []
        shown = self.shown
        for first, behind in lost_stretches(self.lost):
            end_s = self.second(int(shown[behind])) if behind < len(shown) else None
            found.append(Loss(start_s=self.second(int(shown[first])), end_s=end_s, reason=_DAMAGED))
        for packet in np.flatnonzero((self.flags & (DAMAGED | HIDDEN)) == DAMAGED | HIDDEN).tolist():
            after = int(np.searchsorted(self.pts[shown], self.pts[packet], side="right"))
            if after < len(shown):
                start_s, end_s = max(self.second(packet), 0.0), self.second(int(shown[after]))
                found.append(Loss(start_s=start_s, end_s=end_s, reason=_DAMAGED))
        return joined(found)

    def use(self, losses: Sequence[Loss] | None = None) -> MediaUse:
        """What a verb used of the file; `losses` are those that it found while decoding, else what is known without."""
        return MediaUse(
            losses=joined([*self.losses, *(self.damaged if losses is None else losses)]),
            notes=self.notes,
            used_s=float((self.end - self.origin) * self.time_base),
            longest_frame_s=float(int((self.ends - self.pts[self.shown]).max()) * self.time_base),
        )


def needs_order(facts: StreamFacts, rows: Sequence[Row]) -> bool:
    """Whether the stream has to be decoded to know which packets show, and when: where the container does not say, or
    stamps two frames of a reordered stream alike, so that the order of the others is in doubt too.
    """
    told = all(row.kind is not None and not row.kind.packed for row in rows)
    if not (told and times_are_stored(facts.container, rows)):
        return True
    times = [row.pts for row in rows if not row.discard]
    return len(set(times)) < len(times) and _reordered(rows, facts)


def stream_breaks(demuxed: Demuxed, facts: StreamFacts, *, max_gap_s: float) -> frozenset[int]:
    """Packets before which a codec is emptied when the whole stream is decoded, or it may drop what it holds: seams,
    and key frames that bring other headers.
    """
    clock = unroll(_stamps(demuxed.rows), _rule(demuxed.rows, facts, max_gap_s))
    return _breaks(demuxed.rows, tuple(leap.packet for leap in clock.leaps if leap.joined))


def build_timeline(
    demuxed: Demuxed,
    facts: StreamFacts,
    *,
    order: FrameOrder | None = None,
    pictures: dict[int, SourcePicture] | None = None,
    max_gap_s: float = DEFAULT_MAX_GAP_S,
) -> Timeline:
    """The timeline of what was demuxed; `order` is given where `needs_order`.

    Raises CorruptMedia if no frame of it is shown.
    """
    rows = demuxed.rows
    rule = _rule(rows, facts, max_gap_s)
    clock = unroll(_stamps(rows), rule)
    told = frame_times(rows, clock, order, facts, rule.step)
    flags = packet_flags(rows)
    if order is not None:
        flags[[*order.damaged, *frameless(rows, order)]] |= DAMAGED
    flags[-1] |= DAMAGED * (facts.file_end.cut and not facts.file_end.between_frames)
    for fault in demuxed.faults:
        flags[fault : _next_key(flags, fault)] |= DAMAGED
    flags[[at is None for at in told]] |= HIDDEN
    draft = _Draft(rows, flags, filled(told), facts, rule)
    draft.hide_headless(clock.leaps)
    draft.hide_late()
    draft.tell_clock(clock)
    draft.tell_end(demuxed)
    draft.tell_appended()
    draft.tell_dropped()
    return draft.timeline(pictures if pictures is not None else order.pictures if order is not None else {})


class _Draft:
    """A timeline while it is decided what is hidden and what is said about it."""

    def __init__(self, rows: Sequence[Row], flags: Flags, pts: Times, facts: StreamFacts, rule: ClockRule) -> None:
        self._rows, self._flags, self._pts, self._facts, self._rule = rows, flags, pts, facts, rule
        self._losses: list[Loss] = []
        self._notes = [facts.note] if facts.note else []
        self._headless = self._late = 0
        self._origin = 0
        self._seams: tuple[int, ...] = ()
        self._moved_from_s: float | None = None
        self._complete = self._cut_off = False

    def hide_headless(self, leaps: Sequence[Leap]) -> None:
        """Hide what no key frame precedes, at the beginning and behind each seam."""
        self._seams = tuple(leap.packet for leap in leaps if leap.joined)
        seams = [0, *self._seams, len(self._rows)]
        lost: list[tuple[int, int, int]] = []
        for start, end in pairwise(seams):
            part = slice(start, end)
            hidden = undecodable(self._flags[part], self._pts[part]) & ((self._flags[part] & HIDDEN) == 0)
            self._flags[part][hidden] |= HIDDEN
            if start == 0:
                self._headless = int(hidden.sum())
            elif hidden.any():
                lost.append((start, int(hidden.sum()), _next_key(self._flags, start)))
        if not ((self._flags & HIDDEN) == 0).any():
            raise CorruptMedia("no frame of it follows a key frame")
        self._origin = int(self._pts[(self._flags & HIDDEN) == 0].min())
        for start, count, key in lost:
            end_s = self._second(int(self._pts[key])) if key < len(self._rows) else None
            reason = f"behind a break of its clock {count} frames come before a key frame"
            self._losses.append(Loss(start_s=self._second(int(self._pts[start])), end_s=end_s, reason=reason))
        if self._headless:
            self._notes.append(f"{self._headless} packets before the first key frame left out")

    def hide_late(self) -> None:
        """Hide frames that share their time with the one before or, where none are reordered, are behind it."""
        visible = np.flatnonzero((self._flags & HIDDEN) == 0)
        if self._rule.reordered:
            visible = visible[np.argsort(self._pts[visible], kind="stable")]
            late = visible[1:][np.diff(self._pts[visible]) == 0]
        else:
            highest = np.maximum.accumulate(self._pts[visible])
            late = visible[1:][self._pts[visible][1:] <= highest[:-1]]
        self._flags[late] |= HIDDEN
        self._late = len(late)
        if self._late:
            at_s = self._second(int(self._pts[late[0]]))
            self._notes.append(
                f"{self._late} frames that share a time with another left out, the first at {at_s:.2f} s"
            )

    def tell_clock(self, clock: Clock) -> None:
        """Say which stamps were dropped and where the clock was joined."""
        base = self._facts.time_base
        told = []
        for (by, _), run in groupby(_runs(clock.contradicted), key=lambda one: one[1:]):
            packets = [packet for packet, *_ in run]
            off = f"{abs(float(by * base)):.2f} s {'ahead of' if by > 0 else 'behind'}"
            one = f"a frame's time stamp is {off} its"
            more = f"the time stamps of {len(packets)} frames are {off} their"
            times = [self._would_show(packet, by) for packet in packets]
            told.append((times, f"{one if len(packets) == 1 else more} neighbours'"))
        for times, reason in told[:_MOST_LINES]:
            self._losses.append(Loss(start_s=min(times), end_s=max(times), reason=reason))
        if len(told) > _MOST_LINES:
            left = [at_s for times, _ in told[_MOST_LINES:] for at_s in times]
            reason = f"{len(left)} more frames have time stamps that their neighbours contradict"
            self._losses.append(Loss(start_s=min(left), end_s=max(left), reason=reason))
        leaps = [leap for leap in clock.leaps if leap.by]
        if leaps:
            self._moved_from_s = self._second(int(self._pts[leaps[0].packet]))
        for leap in leaps[:_MOST_LINES]:
            at_s = self._second(int(self._pts[leap.packet]))
            by_s = abs(float(leap.by * base))
            what = f"a pause of {by_s:.1f} s is cut out" if leap.by > 0 else f"its clock goes back by {by_s:.2f} s"
            self._notes.append(f"{what} at {at_s:.2f} s; what follows is timed on from there")
        if len(leaps) > _MOST_LINES:
            self._notes.append(f"its clock leaps {len(leaps) - _MOST_LINES} times more")

    def tell_end(self, demuxed: Demuxed) -> None:
        """Say where the file is short of what its head promises or ends within a packet."""
        ends = [row.pts + row.duration for row in self._rows if row.pts is not None]
        packets, frames = sum(row.packets for row in self._rows), self._facts.frames
        missing = self._facts.end - max(ends, default=0)
        missing_s = float(missing * self._facts.time_base)
        cut = self._facts.file_end.cut
        all_there = packets >= frames if frames else self._facts.end > 0 and missing <= self._rule.step
        self._complete = bool(all_there and not cut and not self._flags[-1] & DAMAGED)
        self._cut_off = cut or (missing_s > _END_TOLERANCE_S and not packets >= frames > 0)
        if not self._cut_off:
            return
        reason = f"ends after {packets} of {frames} frames" if frames else f"ends {missing_s:.1f} s early"
        reason += f", and {demuxed.fault}" if demuxed.fault else " of what its head says"
        at_s = self._second(int(self._pts[(self._flags & HIDDEN) == 0].max()) + self._rule.step)
        self._losses.append(Loss(start_s=at_s, end_s=None, reason="cut off within a packet" if cut else reason))

    def tell_appended(self) -> None:
        """Say what the file holds behind its end."""
        end = self._facts.file_end
        if end.appended_at > max((row.position or 0 for row in self._rows), default=0):
            self._notes.append(
                f"{show_bytes(end.appended_bytes)} behind its end are not read: a second file was appended"
            )

    def tell_dropped(self) -> None:
        """Say which frames within the file's edit list are not read."""
        dropped = self._facts.dropped
        if dropped:
            reason = f"{len(dropped)} frames of its edit list are not read"
            start_s, end_s = self._second(dropped[0]), self._second(dropped[-1] + self._rule.step)
            self._losses.append(Loss(start_s=start_s, end_s=end_s, reason=reason))

    def timeline(self, pictures: dict[int, SourcePicture]) -> Timeline:
        """The timeline as decided."""
        visible = np.flatnonzero((self._flags & HIDDEN) == 0)
        last = int(visible[np.argmax(self._pts[visible])])
        end = int(self._pts[last]) + self._last_duration(last)
        hdr = sorted({picture.transfer.upper() for picture in pictures.values() if picture.transfer})
        if hdr:
            self._notes.append(f"its transfer is {' and '.join(hdr)} (HDR), which is passed on and not tone-mapped")
        if any(picture.interlaced for picture in pictures.values()):
            self._notes.append("interlaced: both fields of a frame are served woven, as they are decoded")
        if self._facts.alpha_beside or any(picture.has_alpha for picture in pictures.values()):
            self._notes.append("its alpha channel is dropped: colours are served as stored, over no background")
        return Timeline(
            rows=self._rows,
            flags=self._flags,
            pts=self._pts,
            end=end,
            time_base=self._facts.time_base,
            pictures=pictures,
            losses=tuple(sorted(self._losses, key=lambda loss: loss.start_s)),
            notes=tuple(self._notes),
            late=self._late,
            headless=self._headless,
            seams=self._seams,
            moved_from_s=self._moved_from_s,
            step=self._rule.step,
            complete=self._complete,
            cut_off=self._cut_off,
        )

    def _last_duration(self, last: int) -> int:
        """How long the last frame shows: what is left of an MP4's edit, or of the durations that it stores for all of
        its frames together; the packet's own, or one frame.
        """
        stored = self._facts.container in TIMED
        own = (stored and self._rows[last].duration) or self._rule.step
        if self._facts.container.startswith("mov"):
            kept = [row for row in self._rows if not row.discard]
            edited = self._facts.trimmed or len(kept) < len(self._rows)
            if edited and sum(row.packets for row in self._rows) >= self._facts.frames > 0:
                left, least = self._facts.end - (self._rows[last].pts or 0), 0  # durations may be those of other frames
            else:
                left, least = self._origin + sum(row.duration for row in kept) - int(self._pts[last]), own // 2
            own = left if left > least else own
        if own > self._rule.max_gap:
            kept_s, own_s = (float(ticks * self._facts.time_base) for ticks in (self._rule.max_gap, own))
            self._notes.append(f"its last frame is on show for {own_s:.1f} s, of which {kept_s:.1f} s are kept")
        return max(min(own, self._rule.max_gap), 1)

    def _would_show(self, packet: int, by: int) -> float:
        """The second at which a frame would show if its stamp were not off by so many ticks."""
        stamp, moved = self._rows[packet].pts, 0
        if stamp is None:
            return max(self._second(int(self._pts[packet])), 0.0)
        for before in range(packet - 1, max(packet - LOOK_PACKETS, 0) - 1, -1):
            own = self._rows[before].pts
            if own is not None and not self._flags[before] & HIDDEN:
                moved = int(self._pts[before]) - own
                break
        return max(self._second(stamp - by + moved), 0.0)

    def _second(self, pts: int) -> float:
        return round(float((pts - self._origin) * self._facts.time_base), 6)


def _runs(contradicted: dict[int, int]) -> Iterator[tuple[int, int, int]]:
    """Each packet, by how much its stamp is off, and what is the same for those that follow each other."""
    for place, (packet, by) in enumerate(sorted(contradicted.items())):
        yield packet, by, packet - place


def _rule(rows: Sequence[Row], facts: StreamFacts, max_gap_s: float) -> ClockRule:
    return ClockRule(
        step=_step(rows, facts),
        max_gap=int(Fraction(max_gap_s) / facts.time_base),
        reordered=_reordered(rows, facts),
        joinable=facts.container in _JOINABLE,
        seams_ahead=facts.container in _UNCOUNTED,
    )


def _stamps(rows: Sequence[Row]) -> list[Stamp]:
    return [
        Stamp(
            dts=row.dts,
            pts=row.pts,
            duration=row.duration,
            key=row.random_access,
            discard=row.discard,
            damaged=row.damaged,
        )
        for row in rows
    ]


def _breaks(rows: Sequence[Row], seams: Sequence[int]) -> frozenset[int]:
    """Seams, and key frames that bring headers which are not known; one that brings none goes on with those before."""
    found = set(seams)
    known: frozenset[bytes] = frozenset()
    for number, row in enumerate(rows):
        if row.random_access:
            brought = frozenset(row.headers)
            if known and not brought <= known:
                found.add(number)
                known = brought
            known |= brought
    return frozenset(found)


def _reordered(rows: Sequence[Row], facts: StreamFacts) -> bool:
    """Whether frames show in another order than they decode, as the codec's head says or as their times do."""
    times = np.array([row.pts for row in rows if row.pts is not None and not row.discard], np.int64)
    return facts.reordered or int((np.diff(times) < 0).sum()) > max(len(times) // 50, 2)


def _next_key(flags: Flags, start: int) -> int:
    """The first packet from `start` on at which decoding may begin; the number of packets without one."""
    keys = np.flatnonzero(flags[start:] & KEY)
    return start + int(keys[0]) if len(keys) else len(flags)


def _step(rows: Sequence[Row], facts: StreamFacts) -> int:
    """One frame's time: the median of the steps between packets, or of their durations, or the nominal rate's. AVI's
    durations are of its own making.
    """
    told = [row.pts if row.dts is None else row.dts for row in rows if not row.discard]
    steps = [there - here for here, there in pairwise(at for at in told if at is not None) if there > here]
    if not steps:
        steps = [row.duration for row in rows if row.duration > 0]
    return max(int(np.median(steps)), 1) if steps else max(round(1 / (facts.frames_per_s * facts.time_base)), 1)
