"""Which packets give frames, and in which order: found by decoding the whole stream once, where nothing else tells.

Containers such as AVI and program streams store no time of showing, and of some codecs no header is read here. It
decides no times and keeps no frames.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av
from av.error import FFmpegError

from decode_server.media.demux import Faults, Row, raise_storage_fault
from decode_server.media.picture import SourcePicture, describe_picture
from decode_server.media.soundness import LENIENT
from decode_server.media.stream_choice import OpenVideo
from framefeed.errors import UnsupportedMedia


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOrder:
    """`emitted` are (number of its packet, number of the packet it came out with) of each whole frame in the order of
    showing; those that come out at the end are numbered on. `damaged` are packets that gave none, with the reason;
    `pictures` the packets at which the kind of picture changes, with the kind.
    """

    emitted: tuple[tuple[int, int], ...]
    damaged: dict[int, str]
    pictures: dict[int, SourcePicture]


def numbered(packet: Any, number: int) -> Any:
    """The packet with its number for a time stamp, by which its frame is known. What the container says of damage is
    the timeline's to believe: decoders would mark the frame for it.
    """
    if packet.is_corrupt:
        packet = av.Packet(bytes(packet))
    packet.pts = packet.dts = number
    return packet


class PacketNumbers:
    """Numbers packets as rows, where a row may be of two packets."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._numbers = [number for number, row in enumerate(rows) for _ in range(row.packets)]
        self._next = 0

    def of_next(self) -> int:
        """The number of the next packet; beyond the last, that of the last."""
        self._next += 1
        return self._numbers[min(self._next, len(self._numbers)) - 1]


def order_by_decoding(
    video: OpenVideo, rows: Sequence[Row], breaks: Collection[int], *, options: Mapping[str, str] = LENIENT
) -> FrameOrder:
    """Decode all of a stream from its beginning, with these decoder options; at `breaks` the codec is emptied.

    Raises UnsupportedMedia where frames cannot be told apart.
    """
    context = video.stream.codec_context
    context.thread_type, context.options = "NONE", dict(options)
    seen = _Seen(sar=video.stream.sample_aspect_ratio)
    numbers = PacketNumbers(rows)
    at = -1
    for packet in Faults().packets(video):
        before, at = at, numbers.of_next()
        if at in breaks and at != before and context.is_open:
            seen.feed(context, None, at)
            context.flush_buffers()
        seen.feed(context, numbered(packet, at), at)
    seen.feed(context, None, at + 1)
    found = [number for number, _ in seen.emitted]
    if -1 in found or len(set(found)) != len(found):
        raise UnsupportedMedia(f"{context.name} does not tell its frames apart")
    return FrameOrder(emitted=tuple(seen.emitted), damaged=seen.damaged, pictures=seen.pictures)


class _Seen:
    def __init__(self, *, sar: Any) -> None:
        self.emitted: list[tuple[int, int]] = []
        self.damaged: dict[int, str] = {}
        self.pictures: dict[int, SourcePicture] = {}
        self._last: SourcePicture | None = None
        self._glance: tuple[Any, ...] = ()
        self._sar = sar

    def feed(self, context: Any, packet: Any, at: int) -> None:
        try:
            frames = context.decode(packet)
        except FFmpegError as error:
            raise_storage_fault(error)
            self.damaged[at] = f"does not decode ({error.strerror})"
            return
        for frame in frames:
            number = -1 if frame.pts is None else frame.pts
            if frame.is_corrupt:
                self.damaged[number] = "a frame decodes with errors"
                continue
            self.emitted.append((number, at))
            at += packet is None
            self._look(frame, number)

    def _look(self, frame: Any, number: int) -> None:
        """Note the kind of a picture where it changes; most are told to be of the last one's at a glance."""
        glance = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, frame.color_trc)
        if glance == self._glance:
            return
        self._glance = glance
        picture = describe_picture(frame, sar=self._sar)
        if picture != self._last:
            self.pictures[number] = self._last = picture
