"""The whole frames of one source file, in order and exactly timed, with the damaged stretches left out and listed.

Damage is detected rather than concealed: decoders run with `err_detect=explode` and one thread (with frame threads
libavcodec loses the corrupt flag, and errors arrive out of step). What the decoder has not yet put in display order
when damage shows is not given out, and reading resumes at the next key frame, with an empty decoder and without the
pictures that lead it (they may depend on what is lost). So every frame that is given out was whole, and all that it
depends on too. Bits that flip into other valid symbols are beyond any decoder: H.264 and HEVC carry no checksum.

Time is counted from the first frame of the file, in exact ticks of 1 / `ticks_per_s`; it knows nothing of chunks.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import InputContainer
from av.error import FFmpegError

from decode_server.media.container import check_codec, open_container
from framefeed.errors import CorruptMedia, FramefeedError, StorageFault, UnsupportedMedia

_STORAGE_ERRNOS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.ENOENT, errno.ENOMEM})
_FORMATS_WITHOUT_PTS = frozenset({"avi"})
_END_TOLERANCE_S = 0.5
_DEMUX_FAULTS = 16  # so many in a row without a packet are the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A stretch of a source, in seconds from its first frame, of which no frame is used, and why; `end_s` is None where
    it lasts to the source's end.
    """

    start_s: float
    end_s: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedFrame:
    """A decoded frame and its time in ticks since the source's first frame; `resumed` if damage lies before it."""

    frame: av.VideoFrame
    ticks: int
    resumed: bool = False


class _Debts:
    """Which packets of a part owe a frame. A frame depends on packets before its own in decode order only, so it is
    safe once all of those have given theirs whole.

    Known for H.264 and HEVC of whole pictures, where each packet is one frame; elsewhere frames are held for as many
    others as the codec reorders.
    """

    def __init__(self, codec: str) -> None:
        self._known = codec in ("h264", "hevc")
        self._fed = 0
        self._owed: dict[int, int] = {}

    def owe(self, pts: int | None) -> None:
        """A packet was fed; its frame is awaited."""
        self._known = self._known and pts is not None and pts not in self._owed
        self._fed += 1
        if pts is not None:
            self._owed[pts] = self._fed

    def paid(self, frame: av.VideoFrame) -> tuple[int, int | None]:
        """The decode-order number of a frame's packet, and that of the first one lost, which its coming shows."""
        self._known = self._known and not frame.interlaced_frame  # a packet may be one field
        ordinal = self._owed.pop(frame.pts, self._fed) if frame.pts is not None else self._fed
        if not self._known:
            return ordinal, 0 if frame.is_corrupt else None
        overdue = [number for pts, number in self._owed.items() if frame.pts is not None and pts < frame.pts]
        lost = [*overdue, ordinal] if frame.is_corrupt else overdue
        return ordinal, min(lost, default=None)

    def settled(self, ordinal: int, surplus: int) -> bool:
        """Whether a frame is safe; `surplus` is how many more are held than the codec reorders."""
        if not self._known:
            return surplus > 0
        return all(number > ordinal for number in self._owed.values())

    def left(self) -> bool:
        """Whether packets still owe frames, which is damage once the decoder is drained."""
        return self._known and bool(self._owed)


def usable_stream(container: InputContainer) -> av.VideoStream:
    """The video stream to chunk: the first that is no cover picture. Raises UnsupportedMedia if it cannot be used."""
    streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams:
        raise UnsupportedMedia("has no video stream")
    try:
        decodable = bool(streams[0].codec_context.codec.name)
    except (FFmpegError, AttributeError, RuntimeError):
        decodable = False
    if not decodable or not streams[0].time_base:
        raise UnsupportedMedia("has a video stream that no decoder here reads")
    check_codec(streams[0].codec_context.name)
    return streams[0]


class SourceVideo:
    """An open source file; `with` closes it. One thread; reading blocks on the file and the decoder."""

    def __init__(self, path: Path, *, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        """Open `path`; `on_bytes` is called with the size of every video packet read.

        Raises:
            UnsupportedMedia: no container, video stream or decoder for it.
            CorruptMedia: the container's head is damaged.
            StorageFault: the file cannot be read.
        """
        self._on_bytes = on_bytes
        try:
            self._container = open_container(path)
        except (FFmpegError, OSError) as error:
            raise _classified(error, "cannot be opened") from None
        try:
            self._stream = usable_stream(self._container)
        except FramefeedError:
            self._container.close()
            raise
        context = self._stream.codec_context
        context.thread_count = 1
        context.options = {"err_detect": "explode"}
        self._time_base = Fraction(self._stream.time_base or 1)
        self._by_dts = self._container.format.name in _FORMATS_WITHOUT_PTS
        self._demuxed = self._container.demux(self._stream)
        self._demux_faults = self._packets = self._packets_end = 0
        self._ended = False
        self._debts = _Debts("")
        self._first_time: int | None = None
        self._last_time = 0
        self._given = False
        self._damages: list[Damage] = []
        self.repeated_frames = 0
        self.skipped_packets = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    @property
    def ticks_per_s(self) -> int:
        """Denominator of every frame time; the file's own time base decides it, so no time is rounded."""
        return self._time_base.denominator

    @property
    def start_s(self) -> float:
        """The file's own time of its first frame (a player's clock starts there or before it); 0 before reading."""
        return float((self._first_time or 0) * self._time_base)

    @property
    def origin_s(self) -> Fraction:
        """`start_s`, exactly."""
        return (self._first_time or 0) * self._time_base

    @property
    def sar(self) -> Fraction | None:
        """Width : height of a pixel as the container or the stream says it, None where neither does."""
        return self._stream.sample_aspect_ratio

    @property
    def frames_per_s(self) -> Fraction:
        """Nominal rate, for rate control only; frame times are the truth."""
        return self._stream.average_rate or self._stream.base_rate or Fraction(30)

    @property
    def damages(self) -> tuple[Damage, ...]:
        """The stretches left out so far, in order; none for a whole source."""
        return tuple(self._damages)

    def frames(self) -> Iterator[TimedFrame]:
        """Give every whole frame once, times strictly increasing; the others are in `damages`.

        Raises:
            StorageFault: reading failed, which another attempt may not.
        """
        while not self._ended:
            try:
                yield from self._whole_part()
            except CorruptMedia as fault:
                self._open_damage(str(fault))
                self._stream.codec_context.flush_buffers()

    def _open_damage(self, reason: str) -> None:
        """Begin a damaged stretch behind the last frame given out; one that has begun goes on."""
        if self._damages and self._damages[-1].end_s is None:
            return
        last_s = float((self._last_time - (self._first_time or 0)) * self._time_base)
        start_s = last_s + float(1 / self.frames_per_s) if self._given else 0.0
        self._damages.append(Damage(start_s=round(start_s, 6), end_s=None, reason=reason))

    def _close_damage(self, time: int) -> bool:
        """End the open damaged stretch, if there is one, at a frame of this time."""
        if not self._damages or self._damages[-1].end_s is not None:
            return False
        opened = self._damages[-1]
        end_s = round(float((time - (self._first_time or 0)) * self._time_base), 6)
        start_s = min(opened.start_s, end_s)
        self._damages[-1] = Damage(start_s=start_s, end_s=end_s, reason=opened.reason)
        return True

    def _whole_part(self) -> Iterator[TimedFrame]:
        """From the next key frame to the next damage, which raises CorruptMedia, or to the end."""
        held: deque[tuple[int, av.VideoFrame]] = deque()
        try:
            for frame in self._decoded():
                ordinal, lost = self._debts.paid(frame)
                if lost is not None:  # frames shown before a lost one may be predicted from it
                    held = deque(pair for pair in held if pair[0] < lost)
                    raise CorruptMedia("a frame decodes with errors" if frame.is_corrupt else "a packet gives no frame")
                held.append((ordinal, frame))
                while held and self._debts.settled(held[0][0], len(held) - self._stream.codec_context.reorder_depth):
                    yield from self._timed(held.popleft()[1])
            if self._debts.left():
                raise CorruptMedia("a packet gives no frame")
        except CorruptMedia:
            while held and self._debts.settled(held[0][0], 1):
                yield from self._timed(held.popleft()[1])
            raise
        while held:
            yield from self._timed(held.popleft()[1])

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames in display order from the next key frame on. Raises CorruptMedia at damage, without draining."""
        key: av.Packet[av.VideoStream] | None = None
        self._debts = _Debts(self._stream.codec_context.name)
        for packet in self._read_packets():
            if key is None:
                if not packet.is_keyframe or packet.is_corrupt:
                    self.skipped_packets += not self._damages
                    continue
                key = packet
                self._first_time = self._time_of(packet) if self._first_time is None else self._first_time
            if self._damages and packet.pts is not None and key.pts is not None and packet.pts < key.pts:
                continue  # it leads the key frame at which reading resumed
            if packet.is_corrupt:
                raise CorruptMedia("the container marks a packet as corrupt")
            leads = packet.pts is None or key.pts is None or packet.pts < key.pts
            if not (leads or packet.is_discard):
                self._debts.owe(packet.pts)
            yield from self._decode(packet)
        if early := self._ends_early(self._packets, self._packets_end):
            raise CorruptMedia(early)
        if key is not None:
            yield from self._decode(None)

    def _time_of(self, packet: av.Packet[av.VideoStream]) -> int | None:
        return packet.dts if self._by_dts else packet.pts

    def _decode(self, packet: av.Packet[av.VideoStream] | None) -> Iterator[av.VideoFrame]:
        try:
            yield from self._stream.codec_context.decode(packet)
        except FFmpegError as error:
            raise _damage_or_storage_fault(error) from None

    def _read_packets(self) -> Iterator[av.Packet[av.VideoStream]]:
        """The stream's packets; `_ended` is set behind the last. Raises CorruptMedia where the container is damaged."""
        while not self._ended:
            try:
                packet = next(self._demuxed, None)
            except FFmpegError as error:
                self._demux_faults += 1
                self._ended = self._demux_faults > _DEMUX_FAULTS
                self._demuxed = self._container.demux(self._stream)
                raise _damage_or_storage_fault(error) from None
            if packet is None or (packet.size == 0 and packet.pts is None and packet.dts is None):  # the end mark
                self._ended = True
                return
            self._demux_faults = 0
            self._packets += 1
            self._packets_end = max(self._packets_end, (packet.pts or 0) + (packet.duration or 0))
            self._on_bytes(packet.size)
            yield packet

    def _timed(self, frame: av.VideoFrame) -> Iterator[TimedFrame]:
        """`frame` with its time; nothing where it shares it with the frame before. Raises CorruptMedia."""
        time = frame.dts if self._by_dts else frame.pts
        if time is None and self._by_dts and self._given:
            time = self._last_time + 1  # drained frames have no dts; a tick of such a format is one frame
        if time is None:
            raise CorruptMedia("a frame has no time")
        if not self._given:
            if self._first_time is None or not self._damages:
                self._first_time = time
            if time < self._first_time:
                return
        elif time < self._last_time:
            back_s = float((self._last_time - time) * self._time_base)
            raise CorruptMedia(f"frame times go back by {back_s:.3f} s")
        elif time == self._last_time:
            self.repeated_frames += 1
            return
        assert self._first_time is not None
        self._given, self._last_time = True, time
        resumed = self._close_damage(time)
        ticks = (time - self._first_time) * self._time_base.numerator
        yield TimedFrame(frame=frame, ticks=ticks, resumed=resumed)

    def _ends_early(self, packets: int, end: int) -> str:
        """Why the file is short of what its head promises, empty if it is not; `end` is the last packet's end."""
        stream = self._stream
        if stream.frames and stream.duration:
            missing_s = float((stream.duration + (stream.start_time or 0) - end) * self._time_base)
            short = packets < stream.frames and missing_s > _END_TOLERANCE_S
            return f"ends after {packets} of {stream.frames} frames" if short else ""
        missing_s = _tagged_duration_s(stream.metadata.get("DURATION", "")) - float(end * self._time_base)
        return f"ends {missing_s:.1f} s before the time in its head" if missing_s > _END_TOLERANCE_S else ""


def _tagged_duration_s(tag: str) -> float:
    """Seconds of Matroska's per-stream DURATION tag, 0 where there is none to read."""
    try:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _damage_or_storage_fault(error: FFmpegError) -> CorruptMedia | StorageFault:
    fault = _classified(error, "does not decode")
    return fault if isinstance(fault, StorageFault) else CorruptMedia(str(fault))


def _classified(error: FFmpegError | OSError, what: str) -> FramefeedError:
    text = f"{what}: {error.strerror or error}"
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        return StorageFault(text)
    if isinstance(error, (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)):
        return UnsupportedMedia(text)
    return CorruptMedia(text)
