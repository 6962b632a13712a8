"""The packets of one stream as its container has them: where their bytes lie, and what their headers say.

It opens and demuxes; it judges nothing but whether the bytes can be found again without a demuxer.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import av

from decode_server.media.codec_headers import kind_reader
from decode_server.media.container import check_codec
from decode_server.media.picture_kind import PictureKind
from framefeed.errors import CorruptMedia, UnsupportedMedia

_HEADER_BYTES = 64  # a container's own header before a packet (Matroska blocks, AVI chunks) is shorter than this

Place = Callable[[int | None, bytes], int]


class NotWhole(Exception):
    """A packet's bytes do not lie in the file as the decoder needs them, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One packet as demuxed. `key`, `discard` (an edit list leaves it out) and `damaged` are the container's words."""

    offset: int
    size: int
    crc32: int
    pts: int | None
    dts: int | None
    key: bool
    discard: bool
    damaged: bool
    kind: PictureKind | None


def best_stream(container: Any) -> Any:
    """The video stream to serve: FFmpeg's best (default, then most frames, then largest) that is no cover picture.

    Raises UnsupportedMedia when there is none that a decoder here reads.
    """
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    best = container.streams.best("video")
    if not streams:
        raise UnsupportedMedia("has no video stream")
    chosen = best if best in streams else max(streams, key=lambda s: s.width * s.height)
    if chosen.codec_context is None or not chosen.time_base:
        raise UnsupportedMedia("has a video stream that no decoder here reads")
    check_codec(chosen.codec_context.name)
    return chosen


def demux_rows(container: Any, stream: Any, place: Place) -> list[Row]:
    """All packets of the stream in decode order; `place(position, bytes)` says where their bytes lie.

    Raises CorruptMedia without any, UnsupportedMedia when the container changes codec parameters on the way.
    """
    context = stream.codec_context
    read_kind = kind_reader(context.name, bytes(context.extradata or b""))
    rows: list[Row] = []
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        if packet.has_sidedata("new_extradata"):
            raise UnsupportedMedia("its codec parameters change on the way; chunk it instead")
        data = bytes(packet)
        row = Row(
            offset=place(packet.pos, data),
            size=len(data),
            crc32=zlib.crc32(data),
            pts=packet.pts,
            dts=packet.dts,
            key=packet.is_keyframe,
            discard=packet.is_discard,
            damaged=packet.is_corrupt,
            kind=None if read_kind is None else read_kind(data),
        )
        if row.kind is not None and row.kind.second_field and rows:
            rows[-1] = _whole_frame(rows[-1], row, data)
        else:
            rows.append(row)
    if not rows:
        raise CorruptMedia("its video stream has no packets")
    return rows


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
