"""How a file ends, by its container's framing: within a packet that is cut off, or behind a second file that was
appended. Reads a few bytes of it; knows no streams.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from framefeed.regular_file import open_regular

_SYNC = b"\x47"
_TS_PACKET_BYTES, _TS_FEC_BYTES = 188, 16  # ISO/IEC 13818-1; a recorder may put 4 bytes before each, or 16 behind
_MOST_BOXES = 1 << 16


@dataclass(frozen=True, slots=True)
class FileEnd:
    """`cut` if the file ends within a packet, which may be of the stream's last frame unless `between_frames`; from
    byte `appended_at` on it is another file of `appended_bytes`, 0 where nothing is appended.
    """

    cut: bool = False
    between_frames: bool = False
    appended_at: int = 0
    appended_bytes: int = 0


def file_end(path: Path, container: str, stream_id: int) -> FileEnd:
    """How a file of a container (FFmpeg's name of its demuxer) ends; `stream_id` is the container's for the stream.
    Raises OSError.
    """
    if container != "mpegts" and not container.startswith("mov"):
        return FileEnd()
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        if container == "mpegts":
            cut = _ends_within_packet(descriptor, size)
            return FileEnd(cut=cut, between_frames=cut and _begins_frame(descriptor, size, stream_id))
        second = _second_file(descriptor, size)
        return FileEnd(appended_at=second, appended_bytes=size - second) if second else FileEnd()
    finally:
        os.close(descriptor)


def _ends_within_packet(descriptor: int, size: int) -> bool:
    """Whether the last packet of a transport stream does not begin where it must to be whole; padding is no packet."""
    longest = _TS_PACKET_BYTES + _TS_FEC_BYTES
    tail = os.pread(descriptor, longest, max(size - longest, 0))
    begins = {tail[:1], tail[_TS_FEC_BYTES : _TS_FEC_BYTES + 1]}
    return len(tail) == longest and _SYNC not in begins and len(set(tail)) > 1


def _begins_frame(descriptor: int, size: int, stream_id: int) -> bool:
    """Whether the packet that is cut off is the first one of a frame of the stream: those before it are whole then."""
    head = os.pread(descriptor, 3, size - size % _TS_PACKET_BYTES)
    if len(head) < 3 or head[:1] != _SYNC:
        return False
    begins, packet_id = head[1] & 0x40, int.from_bytes(head[1:]) & 0x1FFF
    return bool(begins) and packet_id == stream_id


def _second_file(descriptor: int, size: int) -> int:
    """Where a second file type box of ISO/IEC 14496-12 begins behind a movie box, 0 if there is none."""
    at, movie = 0, False
    for _ in range(_MOST_BOXES):
        head = os.pread(descriptor, 16, at)
        if len(head) < 8:
            return 0
        length, kind = struct.unpack(">I4s", head[:8])
        if kind == b"ftyp" and movie:
            return at
        movie = movie or kind == b"moov"
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:])
        if not 8 <= length <= size - at:
            return 0
        at += length
    return 0
