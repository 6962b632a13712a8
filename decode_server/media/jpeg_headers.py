"""What the markers of one Motion JPEG picture say. A pure function of a packet's bytes.

Source: ITU-T T.81 §B.1 and §B.2.2 (frame header: precision, size, components and their sampling).
"""

from __future__ import annotations

from decode_server.media.picture_kind import PictureKind

_FRAME_HEADERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3})


def jpeg_kind(packet: bytes) -> PictureKind:
    """The kind of a picture, which nothing depends on and which depends on nothing."""
    at = 2
    while at + 4 <= len(packet) and packet[at] == 0xFF:
        size = int.from_bytes(packet[at + 2 : at + 4], "big")
        if packet[at + 1] in _FRAME_HEADERS:
            return PictureKind(random_access=True, reference=False, parameters=(packet[at + 4 : at + 2 + size],))
        at += 2 + size
    return PictureKind(random_access=True, reference=False)
