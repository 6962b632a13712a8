"""What the NAL units of one H.264 or HEVC packet say: where decoding may begin, and what nothing depends on.

Pure functions of a packet's bytes; it parses headers only, never slice data. Sources: ITU-T H.264 §7.3.1 and §7.4.1
(nal_ref_idc 0 = not used for reference by any picture), §D.2.8 (recovery points), ITU-T H.265 §7.4.2.2 (sub-layer
non-reference pictures, IRAP).
"""

from __future__ import annotations

from collections.abc import Iterator

from decode_server.media.bits import Bits, unescaped
from decode_server.media.picture_kind import PictureKind

_H264_SLICES = frozenset({1, 2, 5})
_H264_IDR, _H264_SEI, _H264_PARAMETERS = 5, 6, frozenset({7, 8, 13, 15})
_H264_UNITS, _HEVC_UNITS = range(1, 22), range(41)  # what a packet without a slice may hold and be sound
_H264_INTRA_SLICES = frozenset({2, 4, 7, 9})
_SEI_RECOVERY_POINT = 6
_HEVC_FIRST_NON_VCL = 32
_HEVC_IRAP = range(16, 24)
_HEVC_PARAMETERS = range(32, 35)
_HEVC_SUBLAYER_NON_REFERENCE = frozenset(range(0, 16, 2))


def nal_length_bytes(codec: str, extradata: bytes) -> int:
    """Size of the length field before each NAL unit (avcC, hvcC), or 0 for start codes (Annex B)."""
    if len(extradata) < 7 or extradata[0] != 1:
        return 0
    at = 4 if codec == "h264" else 21
    return (extradata[at] & 3) + 1 if len(extradata) > at else 0


def h264_kind(packet: bytes, length_bytes: int) -> PictureKind:
    """The kind of an H.264 packet: a whole frame, or one field of it.

    Decoding may begin at an IDR picture, and at an intra picture with a recovery point that promises that all from
    there on is exact (recovery_frame_cnt 0, exact_match_flag 1), as in open GOPs; not at intra refresh.
    """
    idr = reference = slices = recovery = False
    intra, garbled = True, False
    parameters: list[bytes] = []
    for unit in nal_units(packet, length_bytes):
        kind = unit[0] & 0x1F
        garbled = garbled or kind not in _H264_UNITS
        if kind in _H264_SLICES:
            slices = True
            idr = idr or kind == _H264_IDR
            reference = reference or bool(unit[0] & 0x60)
            intra = intra and _slice_type(unit) in _H264_INTRA_SLICES
        elif kind == _H264_SEI:
            recovery = recovery or _recovers_at_once(unit)
        elif kind in _H264_PARAMETERS:
            parameters.append(unit.rstrip(b"\0"))
    random_access = idr or (recovery and intra and slices)
    return PictureKind(
        random_access=random_access,
        reference=reference or not slices or bool(parameters),
        shown=slices or garbled or not packet.strip(b"\0"),
        parameters=tuple(parameters),
    )


def hevc_kind(packet: bytes, length_bytes: int) -> PictureKind:
    """The kind of an HEVC packet: a whole frame."""
    irap = reference = slices = garbled = False
    sublayer = 0
    parameters: list[bytes] = []
    for unit in nal_units(packet, length_bytes):
        kind = (unit[0] >> 1) & 0x3F
        garbled = garbled or kind not in _HEVC_UNITS
        if kind < _HEVC_FIRST_NON_VCL and len(unit) > 1:
            slices = True
            irap = irap or kind in _HEVC_IRAP
            reference = reference or kind not in _HEVC_SUBLAYER_NON_REFERENCE
            sublayer = max((unit[1] & 7) - 1, 0)
        elif kind in _HEVC_PARAMETERS:
            parameters.append(unit.rstrip(b"\0"))
    return PictureKind(
        random_access=irap,
        reference=reference or not slices or bool(parameters),
        shown=slices or garbled or not packet.strip(b"\0"),
        sublayer=sublayer,
        parameters=tuple(parameters),
    )


def _slice_type(unit: bytes) -> int:
    bits = Bits(unescaped(unit[1:12]))
    try:
        bits.exp_golomb()  # first_mb_in_slice
        return bits.exp_golomb()
    except EOFError:
        return -1


def _recovers_at_once(unit: bytes) -> bool:
    """Whether an SEI unit holds a recovery point with recovery_frame_cnt 0 and exact_match_flag 1."""
    payload = unescaped(unit[1:])
    at = 0
    while at + 2 < len(payload):
        kind = size = 0
        while at < len(payload) and payload[at] == 0xFF:
            kind, at = kind + 255, at + 1
        kind, at = kind + payload[at : at + 1][0] if at < len(payload) else -1, at + 1
        while at < len(payload) and payload[at] == 0xFF:
            size, at = size + 255, at + 1
        if at >= len(payload):
            return False
        size, at = size + payload[at], at + 1
        if kind == _SEI_RECOVERY_POINT and size and at < len(payload):
            return payload[at] & 0xC0 == 0xC0  # ue(v) 0 is the bit 1; then the flag
        at += size
    return False


def nal_units(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    """The NAL units of a packet, at least one byte each; `length_bytes` is 0 for start codes."""
    return _length_prefixed(packet, length_bytes) if length_bytes else _annex_b(packet)


def _length_prefixed(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    """The NAL units, at least one byte each, of a packet of length-prefixed ones; stops where lengths stop fitting."""
    at = 0
    while at + length_bytes < len(packet):
        size = int.from_bytes(packet[at : at + length_bytes], "big")
        at += length_bytes
        if size:
            yield packet[at : at + size]
        at += size


def _annex_b(packet: bytes) -> Iterator[bytes]:
    """The NAL units, at least one byte each, between the start codes 00 00 01."""
    at = packet.find(b"\0\0\1")
    while 0 <= at < len(packet) - 3:
        following = packet.find(b"\0\0\1", at + 3)
        unit = packet[at + 3 : following if following >= 0 else len(packet)]
        if unit:
            yield unit
        at = following
