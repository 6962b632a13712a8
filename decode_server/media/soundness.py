"""What is damage, and what a sound stream may have: the one rule, for every verb.

A frame is whole when the codec decodes its packet, and all that it depends on, without an error and without concealing
anything. A reference or a slice that is missing is damage. What no picture is made of is none: a supplemental message
that is shorter than it says, a stray header, a unit of a reserved type. Where a decoder stops at such a thing, the
packet's slices alone are tried; if they decode whole, nothing was wrong with the picture.
"""

from __future__ import annotations

from decode_server.media.nal import nal_length_bytes, nal_units

LENIENT = {"strict": "1"}
"""Decoder options that make the H.264 decoder assume the greatest reordering where the stream does not say, so that it
never drops a frame that it thinks comes too late."""
STRICT = LENIENT | {"err_detect": "explode"}
"""Decoder options that, besides, turn every error into an exception, since not every codec marks what it conceals."""

TELL_WHAT_IS_MISSING = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
"""Decoders that notice where a picture ends early: what a container calls damaged at a joint is tried first."""

_START_CODE = b"\0\0\0\1"


def slices_alone(codec: str, header: bytes, packet: bytes) -> bytes | None:
    """The packet with its slices and nothing else, None where that is no other packet, or none of a known codec."""
    if codec not in ("h264", "hevc"):
        return None
    length_bytes = nal_length_bytes(codec, header)
    kept = [unit for unit in nal_units(packet, length_bytes) if _is_slice(codec, unit[0])]
    parts = [(len(unit).to_bytes(length_bytes, "big") if length_bytes else _START_CODE) + unit for unit in kept]
    alone = b"".join(parts)
    return alone if kept and len(alone) < len(packet) else None


def _is_slice(codec: str, first_byte: int) -> bool:
    return 1 <= first_byte & 0x1F <= 5 if codec == "h264" else (first_byte >> 1) & 0x3F < 32
