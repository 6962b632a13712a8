"""What the NAL unit headers of one H.264 or HEVC packet say: where decoding may begin, and what nothing depends on.

Pure functions of a packet's bytes; it parses headers only, never slice data. Sources: ITU-T H.264 §7.3.1 and §7.4.1
(nal_ref_idc 0 = not used for reference by any picture), ITU-T H.265 §7.4.2.2 (sub-layer non-reference pictures, IRAP).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_H264_SLICES = frozenset({1, 2, 5})
_HEVC_FIRST_NON_VCL = 32
_HEVC_IRAP = range(16, 24)
_HEVC_SUBLAYER_NON_REFERENCE = frozenset(range(0, 16, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureKind:
    """`random_access`: decoding may begin here. `reference`: later pictures of the same or a higher sub-layer may use
    it. `sublayer`: the temporal sub-layer (HEVC; 0 for H.264). `slices`: whether the packet holds a picture at all.
    """

    random_access: bool
    reference: bool
    sublayer: int
    slices: bool


def nal_length_bytes(codec: str, extradata: bytes) -> int:
    """Size of the length field before each NAL unit (avcC, hvcC), or 0 for start codes (Annex B)."""
    if len(extradata) < 7 or extradata[0] != 1:
        return 0
    at = 4 if codec == "h264" else 21
    return (extradata[at] & 3) + 1 if len(extradata) > at else 0


def picture_kind(codec: str, packet: bytes, length_bytes: int) -> PictureKind:
    """The kind of the picture in a packet of codec 'h264' or 'hevc'."""
    units = _length_prefixed(packet, length_bytes) if length_bytes else _annex_b(packet)
    return _h264_kind(packet, units) if codec == "h264" else _hevc_kind(packet, units)


def _h264_kind(packet: bytes, units: Iterator[int]) -> PictureKind:
    idr = reference = slices = False
    for at in units:
        kind = packet[at] & 0x1F
        if kind in _H264_SLICES:
            slices = True
            idr = idr or kind == 5
            reference = reference or bool(packet[at] & 0x60)
    return PictureKind(random_access=idr, reference=reference, sublayer=0, slices=slices)


def _hevc_kind(packet: bytes, units: Iterator[int]) -> PictureKind:
    irap = reference = slices = False
    sublayer = 0
    for at in units:
        kind = (packet[at] >> 1) & 0x3F
        if kind < _HEVC_FIRST_NON_VCL and at + 1 < len(packet):
            slices = True
            irap = irap or kind in _HEVC_IRAP
            reference = reference or kind not in _HEVC_SUBLAYER_NON_REFERENCE
            sublayer = max((packet[at + 1] & 7) - 1, 0)
    return PictureKind(random_access=irap, reference=reference, sublayer=sublayer, slices=slices)


def _length_prefixed(packet: bytes, length_bytes: int) -> Iterator[int]:
    """Offsets of the NAL unit headers of a packet whose units are length-prefixed; stops where lengths stop fitting."""
    at = 0
    while at + length_bytes < len(packet):
        size = int.from_bytes(packet[at : at + length_bytes], "big")
        yield at + length_bytes
        at += length_bytes + size


def _annex_b(packet: bytes) -> Iterator[int]:
    """Offsets of the NAL unit headers behind the start codes 00 00 01."""
    at = packet.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(packet):
        yield at + 3
        at = packet.find(b"\0\0\1", at + 3)
