"""The packets of one stream as its container has them: where their bytes lie, and what their headers say.

It demuxes; it judges nothing but whether the bytes can be found again without a demuxer.
"""

from __future__ import annotations

import errno
import mmap
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from av.error import FFmpegError

from decode_server.media.codec_headers import kind_reader
from decode_server.media.picture_kind import PictureKind
from decode_server.media.stream_choice import OpenVideo
from framefeed.errors import CorruptMedia, StorageFault

_STORAGE_ERRNOS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.ENOENT, errno.ENOMEM})
_DEMUX_FAULTS = 16  # so many in a row without a packet are the end
_HEADER_BYTES = 64  # a container's own header before a packet (Matroska blocks, AVI chunks) is shorter than this

Place = Callable[[int | None, bytes], int]


class NotWhole(Exception):
    """A packet's bytes do not lie in the file as the decoder needs them, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One packet as demuxed, or two where each holds a field of its frame. `position`, `key`, `discard` (an edit list
    leaves it out), `damaged` and the times, in units of the stream's time base, are the container's words; `offset` is
    where its bytes are read without one, `header` the codec header in force.
    """

    offset: int
    size: int
    crc32: int
    pts: int | None
    dts: int | None
    duration: int
    key: bool
    discard: bool
    damaged: bool
    position: int | None
    kind: PictureKind | None
    header: bytes = b""
    packets: int = 1

    @property
    def headers(self) -> tuple[bytes, ...]:
        """All headers that say what kind of pictures come from here on, as far as the packet brings them."""
        return (self.header, *(self.kind.parameters if self.kind is not None else ()))

    @property
    def random_access(self) -> bool:
        """Whether decoding may begin here, as the codec says, or the container where the codec is not known."""
        return self.key if self.kind is None else self.kind.random_access


@dataclass(frozen=True, slots=True, kw_only=True)
class Demuxed:
    """All packets of a stream; `faults` are the numbers of packets behind which the demuxer failed, `fault` how."""

    rows: Sequence[Row]
    faults: tuple[int, ...] = ()
    fault: str = ""


def demux_rows(video: OpenVideo, place: Place) -> Demuxed:
    """All packets of the stream in decode order; `place(position, bytes)` says where their bytes lie.

    Ends where the demuxer fails again and again; the rest is told in `fault`. Raises CorruptMedia without any packet.
    """
    context = video.stream.codec_context
    header = bytes(context.extradata or b"")
    read_kind = kind_reader(context.name, header)
    rows: list[Row] = []
    faults = Faults()
    for packet in faults.packets(video):
        repeated = new_header(packet)
        if repeated and repeated != header:
            header = repeated
            read_kind = kind_reader(context.name, header)
        data = bytes(packet)
        kind = None if read_kind is None else read_kind(data)
        row = Row(
            offset=place(packet.pos, data),
            size=len(data),
            crc32=zlib.crc32(data),
            pts=packet.pts,
            dts=packet.dts,
            duration=packet.duration or 0,
            key=packet.is_keyframe,
            discard=packet.is_discard,
            damaged=packet.is_corrupt,
            position=packet.pos,
            kind=kind,
            header=header,
        )
        if kind is not None and kind.second_field and rows:
            rows[-1] = _whole_frame(rows[-1], row, data)
        else:
            rows.append(row)
    if not rows:
        raise CorruptMedia(faults.fault or "its video stream has no packets")
    return Demuxed(rows=rows, faults=tuple(faults.after), fault=faults.fault)


def new_header(packet: Any) -> bytes:
    """The codec header that a container repeats or changes with this packet, empty without one."""
    if not packet.has_sidedata("new_extradata"):
        return b""
    return next((bytes(data) for data in packet.iter_sidedata() if data.data_type == "new_extradata"), b"")


class Faults:
    """Goes on behind faults of a demuxer, and keeps count of where they were."""

    def __init__(self) -> None:
        self.after: list[int] = []
        self.fault = ""

    def packets(self, video: OpenVideo) -> Iterator[Any]:
        """The stream's packets, empty ones left out. Raises StorageFault where it is the storage that fails."""
        demuxed = video.container.demux(video.stream)
        given = in_a_row = 0
        while in_a_row <= _DEMUX_FAULTS:
            try:
                packet = next(demuxed, None)
            except FFmpegError as error:
                raise_storage_fault(error)
                in_a_row += 1
                self.fault = f"does not demux ({error.strerror})"
                self.after.append(given)
                demuxed = video.container.demux(video.stream)
                continue
            if packet is None:
                return
            if packet.size:
                given, in_a_row = given + 1, 0
                yield packet


def raise_storage_fault(error: FFmpegError | OSError) -> None:
    """Raise StorageFault if it is the storage that failed: another attempt may succeed."""
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        raise StorageFault(f"cannot be read: {error.strerror or error}") from None


def _whole_frame(first: Row, second: Row, second_data: bytes) -> Row:
    """Two fields as one packet, which they must be to decode to one frame. Raises NotWhole if they do not touch."""
    if first.offset + first.size != second.offset:
        raise NotWhole
    assert first.kind is not None
    assert second.kind is not None
    kind = replace(
        first.kind,
        reference=first.kind.reference or second.kind.reference,
        parameters=first.kind.parameters + second.kind.parameters,
    )
    return replace(
        first,
        size=first.size + second.size,
        crc32=zlib.crc32(second_data, first.crc32),
        duration=max(first.duration, second.duration),
        packets=first.packets + second.packets,
        damaged=first.damaged or second.damaged,
        kind=kind,
    )


def place_in(media: mmap.mmap) -> Place:
    """Finds packets in their media file: at their position, or behind the container's header there."""

    def place(position: int | None, data: bytes) -> int:
        at = -1 if position is None else media.find(data, position, position + _HEADER_BYTES + len(data))
        if at < 0:
            raise NotWhole
        return at

    return place


def place_at_end_of(sidecar: BinaryIO) -> Place:
    """Writes packets to a sidecar, one behind the other."""

    def place(position: int | None, data: bytes) -> int:
        del position
        at = sidecar.tell()
        sidecar.write(data)
        return at

    return place
