"""The frames of one source file, in order and exactly timed, up to the first damage; knows nothing of chunks.

Damage is detected rather than concealed: decoders run with `err_detect=explode` and one thread (with frame threads
libavcodec loses the corrupt flag, and errors arrive out of step). What the decoder has not yet put in display order
when damage shows is not given out, so every frame that is given out was whole and had all frames before it.
Bits that flip into other valid symbols are beyond any decoder: H.264 and HEVC carry no checksum.

Time is counted from the first frame that is given out, in exact ticks of 1 / `ticks_per_s`.
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
from av.error import FFmpegError

from framefeed.errors import CorruptMedia, FramefeedError, StorageFault, UnsupportedMedia

_STORAGE_ERRNOS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.ENOENT, errno.ENOMEM})
_FORMATS_WITHOUT_PTS = frozenset({"avi"})
_END_TOLERANCE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Where the clean frames of a source end, in seconds from its first frame, and why."""

    second_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedFrame:
    """A decoded frame and its time in ticks since the source's first frame."""

    frame: av.VideoFrame
    ticks: int


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
            self._container = av.open(str(path), metadata_errors="replace")
        except (FFmpegError, OSError) as error:
            raise _classified(error, "cannot be opened") from None
        try:
            self._stream = self._usable_stream()
        except FramefeedError:
            self._container.close()
            raise
        context = self._stream.codec_context
        context.thread_count = 1
        context.options = {"err_detect": "explode"}
        self._time_base = Fraction(self._stream.time_base or 1)
        self._by_dts = self._container.format.name in _FORMATS_WITHOUT_PTS
        self._first_time: int | None = None
        self._last_time = 0
        self._fault = ""
        self.repeated_frames = 0
        self.skipped_packets = 0

    def _usable_stream(self) -> av.VideoStream:
        streams = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            raise UnsupportedMedia("has no video stream")
        try:
            decodable = bool(streams[0].codec_context.codec.name)
        except (FFmpegError, AttributeError, RuntimeError):
            decodable = False
        if not decodable or not streams[0].time_base:
            raise UnsupportedMedia("has a video stream that no decoder here reads")
        return streams[0]

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
    def sar(self) -> Fraction | None:
        """Width : height of a pixel as the container or the stream says it, None where neither does."""
        return self._stream.sample_aspect_ratio

    @property
    def frames_per_s(self) -> Fraction:
        """Nominal rate, for rate control only; frame times are the truth."""
        return self._stream.average_rate or self._stream.base_rate or Fraction(30)

    @property
    def damage(self) -> Damage | None:
        """What ended the frames before their time, once they have ended; None for a whole source."""
        if not self._fault:
            return None
        second_s = float((self._last_time - (self._first_time or 0)) * self._time_base)
        return Damage(second_s=round(second_s, 3), reason=self._fault)

    def frames(self) -> Iterator[TimedFrame]:
        """Give every frame once, times strictly increasing, until the end or `damage`, which is then set.

        Raises:
            StorageFault: reading failed, which another attempt may not.
        """
        try:
            yield from self._whole()
        except CorruptMedia as fault:
            self._fault = str(fault)

    def _whole(self) -> Iterator[TimedFrame]:
        held: deque[av.VideoFrame] = deque()
        for frame in self._decoded():
            if frame.is_corrupt:  # frames shown before it may have been predicted from it, so the held ones go too
                raise CorruptMedia("a frame decodes with errors")
            held.append(frame)
            if len(held) > self._stream.codec_context.reorder_depth:
                yield from self._timed(held.popleft())
        while held:
            yield from self._timed(held.popleft())

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Frames in display order; a fault sets `damage` and ends them without draining the decoder."""
        packets = end = 0
        seen_key = False
        try:
            for packet in self._container.demux(self._stream):
                if packet.size == 0 and packet.pts is None and packet.dts is None:  # the demuxer's end mark
                    break
                packets += 1
                end = max(end, (packet.pts or 0) + (packet.duration or 0))
                self._on_bytes(packet.size)
                seen_key = seen_key or packet.is_keyframe
                if not seen_key:
                    self.skipped_packets += 1
                    continue
                if packet.is_corrupt:
                    self._fault = "the container marks a packet as corrupt"
                    return
                yield from packet.decode()
            self._fault = self._ends_early(packets, end)
            if self._fault:
                return
            yield from self._stream.codec_context.decode(None)
        except FFmpegError as error:
            fault = _classified(error, "does not decode")
            if isinstance(fault, StorageFault):
                raise fault from None
            self._fault = str(fault)

    def _timed(self, frame: av.VideoFrame) -> Iterator[TimedFrame]:
        """`frame` with its time; nothing where it shares it with the frame before. Raises CorruptMedia."""
        time = frame.dts if self._by_dts else frame.pts
        if time is None and self._by_dts and self._first_time is not None:
            time = self._last_time + 1  # drained frames have no dts; a tick of such a format is one frame
        if time is None:
            raise CorruptMedia("a frame has no time")
        if self._first_time is None:
            self._first_time = self._last_time = time
            yield TimedFrame(frame=frame, ticks=0)
        elif time < self._last_time:
            back_s = float((self._last_time - time) * self._time_base)
            raise CorruptMedia(f"frame times go back by {back_s:.3f} s")
        elif time == self._last_time:
            self.repeated_frames += 1
        else:
            self._last_time = time
            yield TimedFrame(frame=frame, ticks=(time - self._first_time) * self._time_base.numerator)

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


def _classified(error: FFmpegError | OSError, what: str) -> FramefeedError:
    text = f"{what}: {error.strerror or error}"
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        return StorageFault(text)
    if isinstance(error, (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)):
        return UnsupportedMedia(text)
    return CorruptMedia(text)
