"""What the start codes of one MPEG-2 or MPEG-4 part 2 packet say. Pure functions of a packet's bytes.

Sources: ISO/IEC 13818-2 §6.2 (sequence B3, picture 00, picture_coding_type), ISO/IEC 14496-2 §6.2 (video object layer
20-2F, video object plane B6, vop_coding_type). In both a B picture is never a reference.
"""

from __future__ import annotations

from collections.abc import Iterator

from decode_server.media.picture_kind import PictureKind

_MPEG2_PICTURE, _MPEG2_SEQUENCE, _MPEG2_GROUP = 0x00, 0xB3, 0xB8
_MPEG2_I, _MPEG2_B = 1, 3
_MPEG4_LAYER, _MPEG4_PLANE = range(0x20, 0x30), 0xB6
_MPEG4_I, _MPEG4_B = 0, 2


def mpeg2_kind(packet: bytes) -> PictureKind:
    """The kind of an MPEG-1 or MPEG-2 packet: a frame, or both fields of one."""
    types: list[int] = []
    parameters: tuple[bytes, ...] = ()
    for code, at in _start_codes(packet):
        if code == _MPEG2_PICTURE and at + 1 < len(packet):
            types.append(packet[at + 1] >> 3 & 7)
        elif code == _MPEG2_SEQUENCE:
            parameters += (_until(packet, at, (_MPEG2_PICTURE, _MPEG2_GROUP)),)
    return PictureKind(
        random_access=types[:1] == [_MPEG2_I],
        reference=not types or set(types) != {_MPEG2_B} or bool(parameters),
        shown=bool(types),
        parameters=parameters,
    )


def mpeg4_kind(packet: bytes) -> PictureKind:
    """The kind of an MPEG-4 part 2 packet: a picture, or several as DivX packs them in AVI."""
    types: list[int] = []
    parameters: tuple[bytes, ...] = ()
    for code, at in _start_codes(packet):
        if code == _MPEG4_PLANE and at < len(packet):
            types.append(packet[at] >> 6)
        elif code in _MPEG4_LAYER:
            parameters += (_until(packet, at, (_MPEG4_PLANE, 0xB3)),)
    return PictureKind(
        random_access=types[:1] == [_MPEG4_I],
        reference=types != [_MPEG4_B] or bool(parameters),
        shown=bool(types),
        parameters=parameters,
        packed=len(types) > 1,
    )


def _start_codes(packet: bytes) -> Iterator[tuple[int, int]]:
    """(code, offset of what follows it) of each start code 00 00 01 xx."""
    at = packet.find(b"\0\0\1")
    while 0 <= at < len(packet) - 3:
        yield packet[at + 3], at + 4
        at = packet.find(b"\0\0\1", at + 3)


def _until(packet: bytes, start: int, codes: tuple[int, ...]) -> bytes:
    ends = [at for at in (packet.find(bytes((0, 0, 1, code)), start) for code in codes) if at >= 0]
    return packet[start : min(ends, default=len(packet))].rstrip(b"\0")
