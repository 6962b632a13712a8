"""When each packet's frame shows, for containers that do not store it: found by the order in which the codec puts out.

It decodes a whole stream once, at indexing; it crops and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import av
import numpy as np

from decode_server.clips.decoder import open_decoder
from decode_server.media.demux import Row
from framefeed.errors import CorruptMedia, UnsupportedMedia

Times = np.ndarray[Any, np.dtype[np.int64]]
# Containers that store the time of every frame. Others (AVI, program streams) store none or some, and FFmpeg guesses.
_TIMED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "flv", "asf"})


def are_times_stored(container_name: str, rows: Sequence[Row]) -> bool:
    """Whether the packets' own times can be believed: one of its own for each shown frame."""
    times = [row.pts for row in rows]
    headers_known = all(row.kind is not None and not row.kind.packed for row in rows)
    return container_name in _TIMED and headers_known and None not in times and len(set(times)) == len(times)


def times_by_decoding(stream: Any, rows: Sequence[Row], read: Callable[[Row], bytes], step: int) -> list[int | None]:
    """Times in units of the stream's time base, by packet; None for packets that show nothing.

    A frame's time is that of the packet that it comes out with, less the decoder's delay; `step` is one frame's time,
    for packets without any. Raises CorruptMedia where the stream does not decode, UnsupportedMedia where the decoder
    does not tell which packet a frame came from.
    """
    emitted = _emitted(stream, rows, read)
    order = [ordinal for ordinal, _ in emitted]
    if -1 in order or len(set(order)) != len(order) or not order:
        raise UnsupportedMedia(f"{stream.codec_context.name} does not tell its frames apart; chunk it instead")
    slots = _slots(rows, step)
    if len(order) == len(rows):
        places = list(range(len(rows)))
    else:
        delay = emitted[0][1] - emitted[0][0]
        places = [max(at - delay, 0) for _, at in emitted]
        if len(set(places)) != len(places) or max(places) >= len(rows):
            places = sorted(order)
    result: list[int | None] = [None] * len(rows)
    for ordinal, place in zip(order, places, strict=True):
        result[ordinal] = slots[place]
    return result


def filled(times: Sequence[int | None]) -> Times:
    """Times as an array, int64; a packet that shows nothing gets the latest time before it."""
    known = np.array([-(2**62) if t is None else t for t in times], np.int64)
    return np.where([t is None for t in times], np.maximum.accumulate(known), known)


def _emitted(stream: Any, rows: Sequence[Row], read: Callable[[Row], bytes]) -> list[tuple[int, int]]:
    """(ordinal of its packet, ordinal of the packet that it came out with) of each frame in the order of showing.

    Frames that come out at the end are numbered on.
    """
    context = stream.codec_context
    decoder = open_decoder(context.name, bytes(context.extradata or b""), context.codec_tag)
    emitted: list[tuple[int, int]] = []
    for ordinal, row in enumerate(rows):
        packet: av.Packet[Any] = av.Packet(read(row))
        packet.pts = ordinal
        try:
            emitted += [(-1 if f.pts is None else f.pts, ordinal) for f in decoder.decode(packet)]
        except av.FFmpegError as error:
            raise CorruptMedia(f"packet {ordinal} does not decode ({error.strerror}), so no times are known") from None
    emitted += [(-1 if f.pts is None else f.pts, len(rows) + i) for i, f in enumerate(decoder.decode(None))]
    return emitted


def _slots(rows: Sequence[Row], step: int) -> list[int]:
    """A rising time for each packet: the container's, where each has one of its own, else one frame after the other."""
    for times in ([row.dts for row in rows], [row.pts for row in rows]):
        known = sorted(t for t in times if t is not None)
        if len(set(known)) == len(rows):
            return known
    return [i * step for i in range(len(rows))]
