"""One media file to its packet index: demuxed once, so that no demuxer is needed when clips are decoded.

It knows files and codecs, not roots or manifests. A file whose packets cannot be found in it byte for byte, or whose
frames cannot be told apart, is refused with the reason rather than indexed approximately.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from decode_server.decoder import open_decoder
from decode_server.nal import nal_length_bytes, picture_kind
from decode_server.packet_index import DISPOSABLE, HIDDEN, KEY, PacketIndex
from decode_server.picture import SourcePicture, describe_picture
from decode_server.swscale import planar_layout
from framefeed.clip import Colour, Matrix
from framefeed.errors import CorruptMedia, UnsupportedMedia

_MATRICES: dict[int, Matrix] = {1: "bt709", 9: "bt2020", 10: "bt2020"}  # ITU-T H.273 matrix coefficients; else BT.601
_QUARTER_TURNS_DEG = {(): 0, ("transpose=clock",): 270, ("hflip", "vflip"): 180, ("transpose=cclock",): 90}
# Decoders of codecs for which containers store every frame's own time.
_TRUSTED = frozenset({"h264", "hevc", "vp8", "vp9", "libvpx-vp9", "libdav1d", "av1", "mjpeg"})
_HEADER_BYTES = 64  # a container's own header before a packet (Matroska blocks, AVI chunks) is shorter than this


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One packet as demuxed; `kind_flags` are KEY and reference-ness as far as the codec's headers say."""

    offset: int
    size: int
    pts: int | None
    flags: int
    sublayer: int
    crc32: int


def probe(path: Path, *, name: str, chunk: bool) -> PacketIndex:
    """The packet index of the best video stream of a file; `name` is the path that the index records.

    Time 0 is the first shown frame, or for a `chunk` the file's own time 0: a chunk may begin between two frames of
    its video. Raises CorruptMedia or UnsupportedMedia with the reason the file cannot be served.
    """
    try:
        with av.open(str(path)) as container:
            stream = next((s for s in container.streams.video if not _is_cover(s)), None)
            if stream is None:
                raise UnsupportedMedia(f"{name}: has no video stream")
            number = stream.index
            first = next(iter(container.decode(stream)), None)
            if first is None:
                raise CorruptMedia(f"{name}: no frame of it decodes")
        with av.open(str(path)) as container:
            return _index(path, name, container.streams[number], first, chunk=chunk)
    except av.FFmpegError as error:
        raise CorruptMedia(f"{name}: cannot be read as video ({error.strerror})") from None
    except OSError as error:
        raise CorruptMedia(f"{name}: cannot be opened ({error.strerror})") from None


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _index(path: Path, name: str, stream: Any, first: av.VideoFrame, *, chunk: bool) -> PacketIndex:
    context = stream.codec_context
    try:
        planar_layout(first.format.name)
        picture = describe_picture(first, sar=stream.sample_aspect_ratio)
        rotation_deg = _rotation_deg(picture)
        rows = list(_rows(path, name, stream))
        pts = [row.pts for row in rows]
        if None in pts or len(set(pts)) != len(pts) or context.name not in _TRUSTED:
            pts = _times_by_decoding(path, name, stream, rows)
    except UnsupportedMedia as error:
        raise UnsupportedMedia(f"{name}: {error}" if name not in str(error) else str(error)) from None
    flags = np.array([row.flags | (HIDDEN if p is None else 0) for row, p in zip(rows, pts, strict=True)], np.uint8)
    times = _filled(pts)
    flags = _with_undecodable_hidden(flags, times)
    shown = (flags & HIDDEN) == 0
    if not shown.any():
        raise CorruptMedia(f"{name}: no frame of it follows a key frame")
    origin = 0 if chunk else int(times[shown].min())
    status = path.stat()
    step = _frame_step(times[shown], stream)
    end_s = (int(times[shown].max()) - origin + step) * float(stream.time_base)
    return PacketIndex(
        path=name,
        media_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        decoder=context.name,
        codec_tag=context.codec_tag,
        extradata=bytes(context.extradata or b""),
        width_px=first.width,
        height_px=first.height,
        pixel_format=first.format.name,
        rotation_deg=rotation_deg,
        colour=Colour(matrix=_MATRICES.get(picture.matrix, "bt601"), full_range=picture.full_range),
        time_base_s=(stream.time_base.numerator, stream.time_base.denominator),
        origin_pts=origin,
        duration_s=end_s,
        offset=np.array([row.offset for row in rows], np.int64),
        size=np.array([row.size for row in rows], np.uint32),
        pts=times,
        flags=flags,
        crc32=np.array([row.crc32 for row in rows], np.uint32),
    )


def _rotation_deg(picture: SourcePicture) -> int:
    """Counter-clockwise degrees that set the picture upright."""
    if picture.upright not in _QUARTER_TURNS_DEG:
        raise UnsupportedMedia("its display matrix mirrors the picture; chunk it instead")
    return _QUARTER_TURNS_DEG[picture.upright]


def _frame_step(times: np.ndarray[Any, np.dtype[np.int64]], stream: Any) -> int:
    """How long the last frame shows, in units of the time base: the median step, or one frame of the stream's rate."""
    if len(times) > 1:
        return int(np.median(np.diff(np.sort(times))))
    rate = stream.average_rate or stream.guessed_rate
    return max(round(1 / (rate * stream.time_base)), 1) if rate else 1


def _rows(path: Path, name: str, stream: Any) -> Iterator[_Row]:
    """Demux the stream; each row's offset is where the packet's very bytes lie in the file."""
    context = stream.codec_context
    codec = context.name if context.name in ("h264", "hevc") else ""
    length_bytes = nal_length_bytes(codec, bytes(context.extradata or b""))
    rows: list[_Row] = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as media:
        for packet in stream.container.demux(stream):
            if packet.size == 0:
                continue
            if packet.has_sidedata("new_extradata"):
                raise UnsupportedMedia(f"{name}: its codec parameters change on the way; chunk it instead")
            data = bytes(packet)
            flags, sublayer = _flags(codec, packet, data, length_bytes)
            offset = _locate(media, packet.pos, data, name)
            row_pts = packet.pts
            rows.append(
                _Row(offset=offset, size=len(data), pts=row_pts, flags=flags, sublayer=sublayer, crc32=zlib.crc32(data))
            )
    if not rows:
        raise CorruptMedia(f"{name}: its video stream has no packets")
    highest = max(row.sublayer for row in rows)
    for row in rows:
        # A non-reference picture of a lower sub-layer may still be used by the layers above it.
        lower = row.sublayer < highest
        yield row if not lower else _without_disposable(row)


def _without_disposable(row: _Row) -> _Row:
    return _Row(
        offset=row.offset,
        size=row.size,
        pts=row.pts,
        flags=row.flags & ~DISPOSABLE,
        sublayer=row.sublayer,
        crc32=row.crc32,
    )


def _flags(codec: str, packet: Any, data: bytes, length_bytes: int) -> tuple[int, int]:
    """Flags of a packet, and its temporal sub-layer."""
    hidden = HIDDEN if packet.is_discard else 0
    if not codec:
        return hidden | (KEY if packet.is_keyframe else 0), 0
    kind = picture_kind(codec, data, length_bytes)
    key = KEY if packet.is_keyframe and kind.random_access else 0
    disposable = DISPOSABLE if kind.slices and not kind.reference else 0
    return hidden | key | disposable, kind.sublayer


def _locate(media: mmap.mmap, pos: int | None, data: bytes, name: str) -> int:
    """Offset of the packet's bytes in the file, at its position or behind the container's header there."""
    if pos is not None:
        at = media.find(data, pos, pos + _HEADER_BYTES + len(data))
        if at >= 0:
            return at
    raise UnsupportedMedia(f"{name}: its packets do not lie whole in the file ({pos=}); chunk it instead")


def _times_by_decoding(path: Path, name: str, stream: Any, rows: list[_Row]) -> list[int | None]:
    """Presentation times by the order in which the codec puts the frames out; None for packets that show nothing.

    For containers and codecs whose own times are missing or guessed. The times themselves stay the container's, sorted;
    without any, frames are one frame period apart.
    """
    context = stream.codec_context
    decoder = open_decoder(context.name, bytes(context.extradata or b""), context.codec_tag)
    order: list[int] = []
    with path.open("rb") as file:
        for ordinal, row in enumerate(rows):
            file.seek(row.offset)
            packet: av.Packet[Any] = av.Packet(file.read(row.size))
            packet.pts = ordinal
            order += [-1 if f.pts is None else f.pts for f in decoder.decode(packet)]
        order += [-1 if f.pts is None else f.pts for f in decoder.decode(None)]
    if -1 in order or len(set(order)) != len(order):
        raise UnsupportedMedia(f"{name}: {context.name} does not tell its frames apart; chunk it instead")
    known = sorted(row.pts for row in rows if row.pts is not None)
    if len(set(known)) == len(rows):
        times = known[: len(order)]
    else:
        step = _frame_step(np.empty(0, np.int64), stream)
        times = [i * step for i in range(len(order))]
    result: list[int | None] = [None] * len(rows)
    for ordinal, time in zip(order, times, strict=True):
        result[ordinal] = time
    return result


def _filled(pts: list[int | None]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Times as an array; a packet that shows nothing gets the latest time before it."""
    known = np.array([-(2**62) if p is None else p for p in pts], np.int64)
    return np.where([p is None for p in pts], np.maximum.accumulate(known), known)


def _with_undecodable_hidden(
    flags: np.ndarray[Any, np.dtype[np.uint8]], times: np.ndarray[Any, np.dtype[np.int64]]
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Hide what comes before the first key packet, or shows before it and may depend on what is missing."""
    keys = np.flatnonzero(flags & KEY)
    if not len(keys):
        flags |= HIDDEN
        return flags
    first = int(keys[0])
    lost = (np.arange(len(flags)) < first) | (times < times[first])
    flags[lost] |= HIDDEN
    return flags
