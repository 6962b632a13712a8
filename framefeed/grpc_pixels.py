"""A reply's pixels within its protobuf message, for gRPC: written and cut out around one copy or none.

The bulk of a reply does not pass through protobuf's objects. It knows no calls, no sockets and no other field.
Source of the format: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from framefeed.errors import BadRequest
from framefeed.v1 import decode_pb2 as pb

_PIXELS = pb.Reply.DESCRIPTOR.fields_by_name["pixels"].number
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10


def with_pixels(packed: bytes, pixels: memoryview | None) -> bytes:
    """The bytes of a Reply with its pixels behind all other fields; they are copied once."""
    if pixels is None:
        return packed
    return b"".join((packed, _varint(_PIXELS << 3 | _BYTES), _varint(len(pixels)), pixels))


def split_pixels(data: bytes) -> tuple[bytes, memoryview]:
    """The bytes of a Reply without its pixels, and a view of those in `data`. Raises BadRequest if it is none."""
    view, pixels, at = memoryview(data), memoryview(b""), 0
    kept: list[memoryview] = []
    while at < len(view):
        start = at
        key, at = _read_varint(view, at)
        value_at, at = _value(view, at, key & 7)
        if key == _PIXELS << 3 | _BYTES:
            pixels = view[value_at:at]
        else:
            kept.append(view[start:at])
    return b"".join(kept), pixels


def _value(view: memoryview, at: int, kind: int) -> tuple[int, int]:
    """Where the value of a field begins and where it ends."""
    if kind == _VARINT:
        return at, _read_varint(view, at)[1]
    if kind == _BYTES:
        length, at = _read_varint(view, at)
    elif kind in _FIXED_BYTES:
        length = _FIXED_BYTES[kind]
    else:
        raise BadRequest(f"wire: a reply has a field of wire type {kind}")
    if length > len(view) - at:
        raise BadRequest("wire: a reply ends within a field")
    return at, at + length


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends) of the varint that begins here."""
    value = 0
    for i, byte in enumerate(view[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise BadRequest("wire: a reply ends within a number, or has one of more than 64 bits")


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes((low | 0x80,)) + _varint(rest) if rest else bytes((low,))
