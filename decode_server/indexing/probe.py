"""One media file to its packet index: demuxed once, so that no demuxer is needed when clips are decoded.

It knows files and codecs, not roots or manifests. Packets that do not lie whole in the file are copied to a sidecar; a
file whose frames cannot be told apart is refused with the reason rather than indexed approximately.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from decode_server.clips.swscale import planar_layout
from decode_server.indexing.damage_check import flags_after_check
from decode_server.indexing.frame_times import Times, are_times_stored, filled, times_by_decoding
from decode_server.indexing.packet_flags import Flags, hide_undecodable, packet_flags
from decode_server.indexing.sidecar import write_sidecar
from decode_server.media.codec_headers import parameters_outside
from decode_server.media.container import open_container
from decode_server.media.demux import NotWhole, Row, best_stream, demux_rows, place_at_end_of, place_in
from decode_server.media.packet_index import HIDDEN, PacketIndex
from decode_server.media.picture import SourcePicture, describe_picture
from framefeed.clip import Colour, Matrix
from framefeed.errors import CorruptMedia, UnsupportedMedia
from framefeed.regular_file import open_regular

_MATRICES: dict[int, Matrix] = {1: "bt709", 9: "bt2020", 10: "bt2020"}  # ITU-T H.273 matrix coefficients; else BT.601
# Counter-clockwise turn, and mirroring left to right after it, by the filters that set the picture upright.
_TURNS: dict[tuple[str, ...], tuple[int, bool]] = {
    (): (0, False),
    ("transpose=clock",): (270, False),
    ("hflip", "vflip"): (180, False),
    ("transpose=cclock",): (90, False),
    ("hflip",): (0, True),
    ("vflip",): (180, True),
    ("transpose=cclock_flip",): (270, True),
    ("transpose=clock_flip",): (90, True),
}
_WIDEST_PIXEL = 8  # width : height, or the other way round, of any real format


@dataclass(frozen=True, slots=True, kw_only=True)
class _Media:
    """The file that is being indexed, and where a sidecar of it would go."""

    path: Path
    name: str
    index_folder: Path
    media_bytes: int
    mtime_ns: int


def probe(path: Path, *, name: str, chunk: bool, index_folder: Path, check: bool = False) -> PacketIndex:
    """The packet index of the best video stream of a file; `name` is the path that the index records.

    Time 0 is the first shown frame, or for a `chunk` the file's own time 0: a chunk may begin between two frames of
    its video. Where the container does not hold packets whole they are copied to a sidecar in `index_folder`. `check`
    decodes all of it three times, to find damage that the codec does not report. Raises CorruptMedia or
    UnsupportedMedia with the reason the file cannot be served.
    """
    try:
        status = path.stat()
        media = _Media(
            path=path, name=name, index_folder=index_folder, media_bytes=status.st_size, mtime_ns=status.st_mtime_ns
        )
        index = _index(media, chunk=chunk)
        return _checked(media, index) if check else index
    except UnsupportedMedia as error:
        raise UnsupportedMedia(f"{name}: {error}" if name not in str(error) else str(error)) from None
    except CorruptMedia as error:
        raise CorruptMedia(f"{name}: {error}" if name not in str(error) else str(error)) from None
    except av.FFmpegError as error:
        raise CorruptMedia(f"{name}: cannot be read as video ({error.strerror})") from None
    except OSError as error:
        raise CorruptMedia(f"{name}: cannot be opened ({error.strerror})") from None
    except (ArithmeticError, LookupError, ValueError) as error:
        # What a damaged head says can be any number, and PyAV's own demuxing fails on some in ways of its own.
        raise CorruptMedia(f"{name}: its head is damaged ({type(error).__name__}: {error})") from None


def _index(media: _Media, *, chunk: bool) -> PacketIndex:
    first = _first_frame(media)
    with open_container(media.path) as container:
        stream = best_stream(container)
        picture = describe_picture(first, sar=stream.sample_aspect_ratio)
        rows, sidecar = _rows(media)
        flags, times = _flags_and_times(media, container, rows, sidecar)
        context = stream.codec_context
        shown = times[(flags & HIDDEN) == 0]
        origin = 0 if chunk else int(shown.min())
        end = int(shown.max()) - origin + _frame_step(shown, stream)
        turn = _TURNS[picture.upright]
        return PacketIndex(
            path=media.name,
            sidecar=sidecar,
            stream=stream.index,
            media_bytes=media.media_bytes,
            mtime_ns=media.mtime_ns,
            decoder=context.name,
            codec_tag=context.codec_tag,
            extradata=bytes(context.extradata or b""),
            width_px=first.width,
            height_px=first.height,
            pixel_format=first.format.name,
            sar=_sane(picture),
            rotation_deg=turn[0],
            mirrored=turn[1],
            checked=False,
            colour=Colour(matrix=_MATRICES.get(picture.matrix, "bt601"), full_range=picture.full_range),
            time_base_s=(stream.time_base.numerator, stream.time_base.denominator),
            origin_pts=origin,
            duration_s=end * float(stream.time_base),
            offset=np.array([row.offset for row in rows], np.int64),
            size=np.array([row.size for row in rows], np.uint32),
            pts=times,
            flags=flags,
            crc32=np.array([row.crc32 for row in rows], np.uint32),
        )


def _first_frame(media: _Media) -> av.VideoFrame:
    """The first frame that decodes without damage: what size, format, colour and orientation are read from."""
    with open_container(media.path) as container:
        stream = best_stream(container)
        stream.thread_type = "NONE"
        first: av.VideoFrame | None = next((f for f in container.decode(stream) if not f.is_corrupt), None)
        if first is None:
            raise CorruptMedia("no frame of it decodes")
        planar_layout(first.format.name)
        return first


def _rows(media: _Media) -> tuple[Sequence[Row], str]:
    """The packets, and the sidecar that holds their bytes, empty if that is the media file."""
    with open_container(media.path) as container, open(open_regular(media.path), "rb") as file:
        stream = best_stream(container)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            try:
                return demux_rows(container, stream, place_in(memory)), ""
            except NotWhole:
                pass
    with open_container(media.path) as container:
        stream = best_stream(container)
        return write_sidecar(
            media.index_folder, media.name, lambda file: demux_rows(container, stream, place_at_end_of(file))
        )


def _flags_and_times(media: _Media, container: Any, rows: Sequence[Row], sidecar: str) -> tuple[Flags, Times]:
    stream = best_stream(container)
    context = stream.codec_context
    flags = packet_flags(rows, parameters_outside(context.name, bytes(context.extradata or b"")))
    times: list[int | None] = [row.pts for row in rows]
    if not are_times_stored(container.format.name, rows):
        with open(open_regular(media.index_folder / sidecar if sidecar else media.path), "rb") as file:

            def read(row: Row) -> bytes:
                file.seek(row.offset)
                return file.read(row.size)

            times = times_by_decoding(stream, rows, read, _frame_step(np.empty(0, np.int64), stream))
    flags[[t is None for t in times]] |= HIDDEN
    result = filled(times)
    flags = hide_undecodable(flags, result)
    if not ((flags & HIDDEN) == 0).any():
        raise CorruptMedia("no frame of it follows a key frame")
    return flags, result


def _checked(media: _Media, index: PacketIndex) -> PacketIndex:
    with open(open_regular(media.index_folder / index.sidecar if index.sidecar else media.path), "rb") as file:

        def read(ordinal: int) -> bytes:
            file.seek(int(index.offset[ordinal]))
            return file.read(int(index.size[ordinal]))

        return replace(index, flags=flags_after_check(index, read), checked=True)


def _sane(picture: SourcePicture) -> tuple[int, int]:
    """Width : height of a pixel. A damaged head can hold any."""
    sar = picture.sar
    if not Fraction(1, _WIDEST_PIXEL) <= sar <= _WIDEST_PIXEL:
        raise UnsupportedMedia(f"its pixels are {sar.numerator}:{sar.denominator}, wanted within 1:8 and 8:1")
    return sar.numerator, sar.denominator


def _frame_step(times: Times, stream: Any) -> int:
    """How long the last frame shows, in units of the time base: the median step, or one frame of the stream's rate."""
    if len(times) > 1:
        return int(np.median(np.diff(np.sort(times))))
    rate = stream.average_rate or stream.guessed_rate
    return max(round(1 / (rate * stream.time_base)), 1) if rate else 1
