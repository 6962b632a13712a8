"""Finds packets whose damage the decoder does not report: decodes all of a stream three times, and compares.

H.264 and MPEG decoders say when a picture is incomplete. Those of HEVC and VP8 may not: where a damaged picture ends
early they leave in place what its memory held before, or go on from what the decoder did last. So each key packet's
stretch is decoded by a fresh decoder, by one that has decoded other pictures and by one that has decoded these; frames
that differ were never whole. It knows packets, not files.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
import numpy as np

from decode_server.clips.decoder import open_decoder
from decode_server.media.packet_index import DAMAGED, HIDDEN, PacketIndex

_HELD_PICTURES = 24  # so many are not written over in the fresh memory, which then holds others than the used one
_WARMING_PACKETS = 40  # more than the pictures that any codec holds at once
Read = Callable[[int], bytes]
Flags = np.ndarray[Any, np.dtype[np.uint8]]


def flags_after_check(index: PacketIndex, read: Read) -> Flags:
    """The index's flags with DAMAGED set on packets that do not decode to one and the same frame each time.

    `read(ordinal)` gives a packet's bytes. Costs three decodes of the whole stream.
    """
    flags = index.flags.copy()
    used = open_decoder(index)
    first_key = int(index.keys[0])
    _hashes(used, [first_key] * _WARMING_PACKETS, read, hold=0)
    for stretch in _stretches(index):
        fresh = open_decoder(index)
        outcomes = [_hashes(fresh, stretch, read, hold=_HELD_PICTURES)]
        for _ in range(2):  # after other pictures, and after these
            used.flush_buffers()
            outcomes.append(_hashes(used, stretch, read, hold=0))
        for i in stretch:
            seen = {outcome.get(i) for outcome in outcomes}
            if len(seen) > 1 or (None in seen and not flags[i] & HIDDEN):
                flags[i] |= DAMAGED
    return flags


def _stretches(index: PacketIndex) -> Iterator[list[int]]:
    """For each key packet what decodes from it, up to the pictures that come after the next one and show before it."""
    pts, keys = index.pts, index.keys.tolist()
    for start, end in zip(keys, [*keys[1:], len(pts)], strict=True):
        stretch = [i for i in range(start, end) if pts[i] >= pts[start]]
        if end < len(pts):
            stretch.append(end)
            after = end + 1
            while after < len(pts) and pts[after] < pts[end]:
                stretch.append(after)
                after += 1
        yield stretch


def _hashes(decoder: Any, ordinals: Iterable[int], read: Read, *, hold: int) -> dict[int, bytes]:
    """Hashes of the whole frames of packets; packets that fail have none. The last `hold` frames keep their memory."""
    held: deque[av.VideoFrame] = deque(maxlen=hold)
    found: dict[int, bytes] = {}
    for ordinal in (*ordinals, None):
        packet: av.Packet[Any] | None = None
        if ordinal is not None:
            packet = av.Packet(read(ordinal))
            packet.pts = ordinal
        try:
            frames = decoder.decode(packet)
        except av.FFmpegError:
            continue
        held.extend(frames)
        for frame in frames:
            if frame.pts is not None and not frame.is_corrupt:
                found[frame.pts] = b"".join(_visible(plane, frame) for plane in frame.planes)
    return found


def _visible(plane: Any, frame: av.VideoFrame) -> bytes:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    sample_bytes = (frame.format.components[0].bits + 7) // 8
    return hashlib.blake2b(rows[:, : plane.width * sample_bytes].tobytes(), digest_size=8).digest()
