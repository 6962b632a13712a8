"""One media file to its packet index: its timeline, demuxed once, so that no demuxer is needed when clips are decoded.

It knows files, not roots or manifests, and decides no times. Packets that do not lie whole in the file are copied to a
sidecar; what the engine cannot serve is refused with the reason rather than indexed approximately.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from decode_server.clips.swscale import planar_layout
from decode_server.indexing.damage_check import flags_after_check
from decode_server.indexing.sidecar import write_sidecar
from decode_server.media.codec_headers import kind_reader, parameters_outside
from decode_server.media.demux import Demuxed, NotWhole, demux_rows, place_at_end_of, place_in
from decode_server.media.media_use import MediaUse
from decode_server.media.packet_flags import Flags, check_parameters
from decode_server.media.packet_index import PacketIndex
from decode_server.media.picture import SourcePicture
from decode_server.media.read_timeline import read_timeline
from decode_server.media.stream_choice import open_video
from decode_server.media.stream_end import ended
from decode_server.media.timeline import DEFAULT_MAX_GAP_S, Timeline
from framefeed.clip import Colour, Matrix
from framefeed.errors import CorruptMedia, FramefeedError, UnsupportedMedia
from framefeed.regular_file import open_regular

# ITU-T H.273 matrix coefficients that the engine converts.
_MATRICES: dict[int, Matrix] = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
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
_NO_GAP_TOO_LONG_S = 1e9
_WIDEST_PIXEL = 8  # width : height, or the other way round, of any real format


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """How files are indexed. Where a container does not hold packets whole they are copied to a sidecar in
    `index_folder`. `check` decodes all three times, to find damage that the codec does not report. Pauses of more than
    `max_gap_s` are cut out.
    """

    index_folder: Path
    check: bool = False
    max_gap_s: float = DEFAULT_MAX_GAP_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What became of a file: its index, None where it is refused, and what is used of it."""

    index: PacketIndex | None
    use: MediaUse


def probe_file(path: Path, *, name: str, chunk: bool, options: ProbeOptions) -> Probed:
    """The packet index of a file's video stream, or the reason why it has none; `name` is the path that it records.

    Time 0 is the first shown frame, or for a `chunk` the file's own time 0: a chunk may begin between two frames of
    its video. Raises nothing for what is in the file.
    """
    try:
        timeline, index = _indexed(path, name=name, chunk=chunk, options=options)
    except FramefeedError as error:
        return Probed(index=None, use=MediaUse(refused=str(error)))
    except av.FFmpegError as error:
        return Probed(index=None, use=MediaUse(refused=f"cannot be read as video ({error.strerror})"))
    except OSError as error:
        return Probed(index=None, use=MediaUse(refused=f"cannot be opened ({error.strerror})"))
    except (ArithmeticError, LookupError, ValueError) as error:
        # What a damaged head says can be any number, and PyAV's own demuxing fails on some in ways of its own.
        return Probed(index=None, use=MediaUse(refused=f"its head is damaged ({type(error).__name__}: {error})"))
    return Probed(index=index, use=timeline.use())


def probe(path: Path, *, name: str, chunk: bool, index_folder: Path, check: bool = False) -> PacketIndex:
    """The index that `probe_file` gives. Raises CorruptMedia or UnsupportedMedia, naming the file, if it has none."""
    try:
        return _indexed(path, name=name, chunk=chunk, options=ProbeOptions(index_folder=index_folder, check=check))[1]
    except FramefeedError as error:
        raise type(error)(f"{name}: {error}") from None
    except (av.FFmpegError, OSError, ArithmeticError, LookupError, ValueError):
        use = probe_file(path, name=name, chunk=chunk, options=ProbeOptions(index_folder=index_folder)).use
        raise CorruptMedia(f"{name}: {use.refused}") from None


def _indexed(path: Path, *, name: str, chunk: bool, options: ProbeOptions) -> tuple[Timeline, PacketIndex]:
    status = path.stat()
    with open_video(path) as video:
        context = video.stream.codec_context
        setup: dict[str, Any] = {
            "decoder": context.name,
            "codec_tag": context.codec_tag,
            "extradata": bytes(context.extradata or b""),
            "sample_bits": context.bits_per_coded_sample or 0,
            "stream": video.stream.index,
        }
        demuxed, sidecar = _demuxed(path, name, video, options.index_folder)
        max_gap_s = _NO_GAP_TOO_LONG_S if chunk else options.max_gap_s  # of a chunk's pauses it was decided before
        timeline = read_timeline(video, path, demuxed, max_gap_s=max_gap_s)
    _require_served(timeline, setup["decoder"], setup["extradata"])
    picture = timeline.main_picture
    rows = timeline.rows
    origin = 0 if chunk else timeline.origin
    turn = _TURNS[picture.upright]
    index = PacketIndex(
        path=name,
        sidecar=sidecar,
        media_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        width_px=picture.width_px,
        height_px=picture.height_px,
        pixel_format=picture.pix_fmt,
        sar=(picture.sar.numerator, picture.sar.denominator),
        rotation_deg=turn[0],
        mirrored=turn[1],
        checked=False,
        colour=_colour(picture),
        colours=_colours(timeline),
        transfer=picture.transfer,
        time_base_s=(timeline.time_base.numerator, timeline.time_base.denominator),
        origin_pts=origin,
        duration_s=float((timeline.end - origin) * timeline.time_base),
        offset=np.array([row.offset for row in rows], np.int64),
        size=np.array([row.size for row in rows], np.uint32),
        pts=timeline.pts,
        flags=timeline.flags,
        crc32=np.array([row.crc32 for row in rows], np.uint32),
        **setup,
    )
    if options.check:
        timeline = ended(replace(timeline, flags=_checked(path, index, options.index_folder)))
        duration_s = float((timeline.end - origin) * timeline.time_base)
        index = replace(index, flags=timeline.flags, pts=timeline.pts, duration_s=duration_s, checked=True)
    return timeline, index


def _demuxed(path: Path, name: str, video: Any, index_folder: Path) -> tuple[Demuxed, str]:
    """The packets, and the sidecar that holds their bytes, empty if that is the media file."""
    with open(open_regular(path), "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        try:
            return demux_rows(video, place_in(memory)), ""
        except NotWhole:
            pass
    with video.again(path) as fresh:
        return write_sidecar(index_folder, name, lambda file: demux_rows(fresh, place_at_end_of(file)))


def _require_served(timeline: Timeline, decoder: str, extradata: bytes) -> None:
    """Raise UnsupportedMedia, with the second, for what would not come out of the engine as it is."""
    first = timeline.pictures[min(timeline.pictures)]
    try:
        planar_layout(first.pix_fmt)
    except UnsupportedMedia as error:  # the filters of chunking take any
        raise UnsupportedMedia(f"{error}; chunk it instead") from None
    if not Fraction(1, _WIDEST_PIXEL) <= first.sar <= _WIDEST_PIXEL:
        raise UnsupportedMedia(
            f"its pixels are {first.sar.numerator}:{first.sar.denominator}, wanted within 1:8 and 8:1"
        )
    last = first
    for packet, picture in sorted(timeline.pictures.items()):
        if (picture.shape(), picture.transfer) != (last.shape(), last.transfer):
            changes = f"its picture changes at {timeline.second(packet):.2f} s: {last.change_to(picture)}"
            raise UnsupportedMedia(f"{changes}; chunk it instead")
        if picture.matrix not in _MATRICES:
            raise UnsupportedMedia("its colour matrix is YCgCo; chunk it instead")
        last = picture
    for packet, row in enumerate(timeline.rows):
        if row.header != extradata:
            at_s = timeline.second(packet)
            raise UnsupportedMedia(f"its codec parameters change on the way, at {at_s:.2f} s; chunk it instead")
    if kind_reader(decoder, extradata) is not None:
        check_parameters(timeline.rows, parameters_outside(decoder, extradata))


def _colour(picture: SourcePicture) -> Colour:
    return Colour(matrix=_MATRICES[picture.matrix], full_range=picture.full_range)


def _colours(timeline: Timeline) -> tuple[tuple[int, Colour], ...]:
    """The packets at which the colour changes, with what it is from there; empty where it is one."""
    changes: list[tuple[int, Colour]] = []
    for packet, picture in sorted(timeline.pictures.items()):
        colour = _colour(picture)
        if not changes or changes[-1][1] != colour:
            changes.append((packet, colour))
    return tuple(changes) if len(changes) > 1 else ()


def _checked(path: Path, index: PacketIndex, index_folder: Path) -> Flags:
    """The index's flags with the damage that is found by decoding."""
    with open(open_regular(index_folder / index.sidecar if index.sidecar else path), "rb") as file:

        def read(ordinal: int) -> bytes:
            file.seek(int(index.offset[ordinal]))
            return file.read(int(index.size[ordinal]))

        return flags_after_check(index, read)
