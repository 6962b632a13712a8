"""The whole frames of one source file, in order and timed by its timeline; what is damaged is left out and listed.

Damage is detected rather than concealed: errors are exceptions, decoded by one thread (with frame threads libavcodec
loses the corrupt flag, and errors arrive out of step). A frame is given out once all packets before its own in decode
order have given theirs whole, since it depends on those only; after damage reading resumes at the next key frame, with
an empty decoder and without the pictures that lead it (they may depend on what is lost). So every frame that is given
out was whole, and all that it depends on too. Bits that flip into other valid symbols are beyond any decoder: H.264
and HEVC carry no checksum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.error import DecoderNotFoundError, FFmpegError, PatchWelcomeError

from decode_server.media.demux import Faults, demux_rows, raise_storage_fault
from decode_server.media.frame_order import PacketNumbers, numbered
from decode_server.media.media_use import Loss, MediaUse
from decode_server.media.packet_index import DAMAGED, HIDDEN, KEY
from decode_server.media.picture import SourcePicture
from decode_server.media.read_timeline import read_timeline
from decode_server.media.soundness import STRICT, slices_alone
from decode_server.media.stream_choice import open_video
from decode_server.media.timeline import DEFAULT_MAX_GAP_S, Timeline
from framefeed.errors import CorruptMedia, StorageFault, UnsupportedMedia

_FINEST_TICKS_PER_S = 1_000_000  # MP4 and encoders count no finer


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedFrame:
    """A decoded frame, on show from `ticks` to `end_ticks` since the source's first frame, and what kind it is of."""

    frame: av.VideoFrame
    ticks: int
    end_ticks: int
    picture: SourcePicture | None = None


class SourceVideo:
    """An open source file; `with` closes it. One thread; reading blocks on the file and the decoder."""

    def __init__(
        self, path: Path, *, on_bytes: Callable[[int], None] = lambda _: None, max_gap_s: float = DEFAULT_MAX_GAP_S
    ) -> None:
        """Open `path` and read its timeline; `on_bytes` is called with the size of every video packet decoded, and
        before that with 0 for each that is read. Pauses of more than `max_gap_s` are cut out.

        Raises:
            UnsupportedMedia: no container, video stream or decoder for it.
            CorruptMedia: the container's head is damaged, or no frame can be shown.
            StorageFault: the file cannot be read.
        """
        self._on_bytes = on_bytes
        self._open = ExitStack()
        try:
            with open_video(path) as video:
                demuxed = demux_rows(video, self._nowhere)
                self.timeline = read_timeline(video, path, demuxed, max_gap_s=max_gap_s)
                self.frames_per_s = Fraction(video.stream.average_rate or video.stream.base_rate or 30)
                self._video = self._open.enter_context(video.again(path))
        except (FFmpegError, OSError) as error:
            raise _refusal(error) from None
        except (ArithmeticError, LookupError, ValueError) as error:  # what a damaged head says can be any number
            raise CorruptMedia(f"its head is damaged ({type(error).__name__}: {error})") from None
        self._context = self._video.stream.codec_context
        self._context.thread_count, self._context.options = 1, STRICT
        self._parts = _Parts(self.timeline)
        self._ends = np.zeros(len(self.timeline.pts), np.int64)
        self._ends[self.timeline.shown] = self.timeline.ends
        self._given = -1
        self._whole: set[int] = set()
        self._reasons: dict[int, str] = {}
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def ticks_per_s(self) -> int:
        """Denominator of every frame time: the file's own time base, so no time is rounded, up to a microsecond."""
        return min(self.timeline.time_base.denominator, _FINEST_TICKS_PER_S)

    @property
    def origin_s(self) -> Fraction:
        """The file's own time of its first frame (a player's clock starts there or before it)."""
        return self.timeline.origin * self.timeline.time_base

    @property
    def damages(self) -> tuple[Loss, ...]:
        """The stretches left out so far, in order; none for a whole source."""
        return self.use.losses

    @property
    def use(self) -> MediaUse:
        """What is used of the file, as far as it has been read."""
        shown = self.timeline.shown.tolist()
        losses: list[Loss] = []
        for lost, group in groupby(range(len(shown)), key=lambda place: shown[place] not in self._whole):
            places = list(group)
            read = self._ended or int(self.timeline.pts[shown[places[0]]]) < self._given
            if lost and read:
                end = places[-1] + 1
                last = max(shown[place] for place in places)
                reason = next((self._reasons[n] for n in sorted(self._reasons, reverse=True) if n <= last), "")
                losses.append(
                    Loss(
                        start_s=round(self._behind(places[0]), 6),
                        end_s=round(self.timeline.second(shown[end]), 6) if end < len(shown) else None,
                        reason=reason or "a packet gives no frame",
                    )
                )
        return self.timeline.use(losses)

    def _behind(self, place: int) -> float:
        """From when on the frame at a place and what may have been lost before it are missing: damage can swallow a
        packet whole, so that nothing tells of it but that the frame before was on show for two or three.
        """
        timeline = self.timeline
        start_s = timeline.second(int(timeline.shown[place]))
        before_s = timeline.second(int(timeline.shown[place - 1])) if place else start_s
        step_s = float(1 / self.frames_per_s)
        return before_s + step_s if step_s < start_s - before_s <= 3.5 * step_s else start_s

    def frames(self) -> Iterator[TimedFrame]:
        """Give every whole frame once, times strictly increasing; the others are in `damages`.

        Raises:
            StorageFault: reading failed, which another attempt may not.
        """
        breaks = self.timeline.breaks
        numbers = PacketNumbers(self.timeline.rows)
        number = -1
        for packet in Faults().packets(self._video):
            before, number = number, numbers.of_next()
            if number in breaks and number != before:
                yield from self._timed(self._finish())
            self._on_bytes(packet.size)
            if self._skips(number):
                continue
            try:
                if self.timeline.flags[number] & DAMAGED:
                    raise CorruptMedia("damaged in its file")
                yield from self._timed(self._parts.take(self._decoded(packet, number), number))
            except _Damaged as damage:
                yield from self._timed(self._break(damage.number, str(damage)))
            except CorruptMedia as damage:
                yield from self._timed(self._break(number, str(damage)))
        yield from self._timed(self._finish())
        self._ended = True

    def _skips(self, number: int) -> bool:
        """Whether a packet is not decoded: no key frame precedes it, or it leads the one that does."""
        flags, pts = self.timeline.flags, self.timeline.pts
        if self._parts.key is None:
            if not flags[number] & KEY or flags[number] & DAMAGED:
                return True
            self._parts.begin(number)
        assert self._parts.key is not None
        return bool(pts[number] < pts[self._parts.key]) and (self._parts.resumed or bool(flags[number] & HIDDEN))

    def _decoded(self, packet: Any, number: int) -> list[av.VideoFrame]:
        """Frames that come out with a packet, or with its slices alone where something else in it is at fault."""
        data = numbered(packet, number)
        try:
            return list(self._context.decode(data))
        except FFmpegError as error:
            raise_storage_fault(error)
            alone = slices_alone(self._context.name, self.timeline.rows[number].header, bytes(data))
            if alone is None:
                raise CorruptMedia(f"does not decode: {error.strerror}") from None
        try:
            return list(self._context.decode(numbered(av.Packet(alone), number)))
        except FFmpegError as error:
            raise CorruptMedia(f"does not decode: {error.strerror}") from None

    def _break(self, number: int, reason: str) -> list[av.VideoFrame]:
        """End a part at a damaged packet; returns the frames that do not depend on it."""
        self._reasons.setdefault(number, reason)
        return self._parts.end(self._drained(), number)

    def _finish(self) -> list[av.VideoFrame]:
        """End a part where nothing is damaged; returns the frames that the codec still holds."""
        if self._parts.key is None:
            return []
        return self._parts.end(self._drained(), len(self.timeline.rows))

    def _drained(self) -> list[av.VideoFrame]:
        """What is left in the codec, which is empty then."""
        frames: list[av.VideoFrame] = []
        if self._context.is_open:
            try:
                frames = list(self._context.decode(None))
            except FFmpegError as error:
                raise_storage_fault(error)
            self._context.flush_buffers()
        return frames

    def _timed(self, frames: list[av.VideoFrame]) -> Iterator[TimedFrame]:
        timeline = self.timeline
        for frame in frames:
            packet = int(frame.pts or 0)
            pts = int(timeline.pts[packet])
            if pts <= self._given and self._whole:
                continue
            self._given = pts
            self._whole.add(packet)
            yield TimedFrame(
                frame=frame,
                ticks=self._ticks(pts),
                end_ticks=max(self._ticks(int(self._ends[packet])), self._ticks(pts) + 1),
                picture=timeline.picture(packet),
            )

    def _nowhere(self, position: int | None, data: bytes) -> int:
        """Where packets lie, which is asked of who keeps an index only."""
        del position, data
        self._on_bytes(0)
        return 0

    def _ticks(self, pts: int) -> int:
        since = (pts - self.timeline.origin) * self.timeline.time_base
        return round(since * self.ticks_per_s)


class _Damaged(CorruptMedia):
    """A frame of an earlier packet turns out not to be whole."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class _Parts:
    """Which frames of a part, from a key frame to damage or the end, are safe to give out. A frame depends on packets
    before its own in decode order only, so it is safe once all of those have given theirs whole.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._flags, self._pts = timeline.flags, timeline.pts
        self.key: int | None = None
        self.resumed = False
        self._owed: dict[int, None] = {}
        self._held: deque[av.VideoFrame] = deque()
        self._latest = 0

    def begin(self, key: int) -> None:
        """A part begins at a key packet."""
        self.key = key
        self._latest = -(1 << 62)

    def take(self, frames: list[av.VideoFrame], fed: int) -> list[av.VideoFrame]:
        """The frames that are safe, after those came out with a packet. Raises _Damaged."""
        if not self._flags[fed] & HIDDEN:
            self._owed.setdefault(fed)
        for frame in frames:
            number = -1 if frame.pts is None else frame.pts
            if frame.is_corrupt:
                raise _Damaged("a frame decodes with errors", number if number >= 0 else fed)
            if number in self._owed:
                if self._pts[number] <= self._latest:
                    raise _Damaged("frames come in another order than their times", number)
                self._latest = int(self._pts[number])
                del self._owed[number]
                self._held.append(frame)
                overdue = [n for n in self._owed if n < number and self._pts[n] < self._pts[number]]
                if overdue:
                    raise _Damaged("a packet gives no frame", overdue[0])
        bound = next(iter(self._owed), fed + 1)
        safe = []
        while self._held and (self._held[0].pts or 0) < bound:
            safe.append(self._held.popleft())
        return safe

    def end(self, drained: list[av.VideoFrame], damaged: int) -> list[av.VideoFrame]:
        """The frames that show before that of a damaged packet and do not depend on it; the part is over."""
        for frame in drained:
            if not frame.is_corrupt and frame.pts in self._owed:
                del self._owed[frame.pts]
                self._held.append(frame)
        bound = min(next(iter(self._owed), damaged), damaged)
        safe = [frame for frame in self._held if (frame.pts or 0) < bound]
        if bound < len(self._pts):
            safe = [frame for frame in safe if self._pts[frame.pts or 0] < self._pts[bound]]
        self.key, self._owed, self._held, self.resumed = None, {}, deque(), True
        return safe


def _refusal(error: FFmpegError | OSError) -> CorruptMedia | StorageFault | UnsupportedMedia:
    text = f"cannot be opened: {error.strerror or error}"
    try:
        raise_storage_fault(error)
    except StorageFault:
        return StorageFault(text)
    return (
        UnsupportedMedia(text) if isinstance(error, (DecoderNotFoundError, PatchWelcomeError)) else CorruptMedia(text)
    )
