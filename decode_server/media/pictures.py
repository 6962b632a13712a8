"""What kinds of picture a stream has, and at which packets they change: size, format, pixel aspect, colour.

A kind can change only where a packet brings other headers, so one frame is decoded for each headers that differ. It
decides nothing about what is done with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from av.error import FFmpegError

from decode_server.media.demux import Faults, Row, raise_storage_fault
from decode_server.media.frame_order import PacketNumbers
from decode_server.media.picture import SourcePicture, describe_picture
from decode_server.media.soundness import LENIENT
from decode_server.media.stream_choice import OpenVideo
from framefeed.errors import CorruptMedia

_MOST_PROBES = 64  # kinds of headers; a stream of more is taken to be of the kinds that these are


def picture_changes(video: OpenVideo, rows: Sequence[Row]) -> dict[int, SourcePicture]:
    """The kind of picture from each of these packets on, the first of which is 0.

    Reads as far as the last kind of headers begins. Raises CorruptMedia if no frame decodes whole, UnsupportedMedia as
    describe_picture does.
    """
    context = video.stream.codec_context
    context.thread_type, context.options = "NONE", LENIENT
    wanted = {number: headers for headers, number in _probes(rows).items()} or {0: ()}
    kinds: dict[tuple[bytes, ...], SourcePicture] = {}
    numbers = PacketNumbers(rows)
    probed = -1
    before = -1
    for packet in itertools.chain(Faults().packets(video), (None,)):
        number = before if packet is None else numbers.of_next()
        if number in wanted and number != before:
            probed = number
            if context.is_open:
                context.flush_buffers()
        before = number
        if probed < 0:
            continue
        alone = number == probed and rows[number].packets == 1
        if frames := _frames(context, packet, alone=alone):
            sar = context.sample_aspect_ratio or video.stream.sample_aspect_ratio
            kinds[wanted[probed]] = describe_picture(frames[0], sar=sar)
            probed = -1
            if number >= max(wanted):
                break
    if not kinds:
        raise CorruptMedia("no frame of it decodes")
    return _changes(rows, kinds)


def _probes(rows: Sequence[Row]) -> dict[tuple[bytes, ...], int]:
    """A packet at which decoding may begin for each kind of headers."""
    found: dict[tuple[bytes, ...], int] = {}
    for number, row in enumerate(rows):
        if row.random_access and len(found) < _MOST_PROBES:
            found.setdefault(row.headers, number)
    return found


def _changes(rows: Sequence[Row], kinds: dict[tuple[bytes, ...], SourcePicture]) -> dict[int, SourcePicture]:
    last = next(iter(kinds.values()))
    changes = {0: last}
    for number, row in enumerate(rows):
        picture = kinds.get(row.headers, last) if row.random_access else last
        if picture != last:
            changes[number] = last = picture
    return changes


def _frames(context: Any, packet: Any, *, alone: bool) -> list[Any]:
    """Whole frames that come out with a packet; of one that stands `alone` at once, without the codec's delay."""
    try:
        frames = context.decode(packet)
        if alone and not frames:
            frames = context.decode(None)
            context.flush_buffers()
            if not frames:
                frames = context.decode(packet)
    except FFmpegError as error:
        raise_storage_fault(error)
        return []
    return [frame for frame in frames if not frame.is_corrupt]
