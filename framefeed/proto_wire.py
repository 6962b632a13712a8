"""Headers of wire.py as the protobuf messages of proto/framefeed/v1 and back: for gRPC. It knows no sockets.

Only the spelling changes; what a header says is judged by who unpacks it, as with every transport. Pixels, the bulk of
a reply, do not pass through protobuf's objects: their field is written and cut out here, around one copy or none.
Source of the format: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from framefeed.errors import BadRequest
from framefeed.v1 import decode_pb2 as pb
from framefeed.wire import pack_body, unpack_body

M = TypeVar("M", bound=Message)

_PIXELS = pb.Clip.DESCRIPTOR.fields_by_name["pixels"].number
_CLIP = pb.DecodeReply.DESCRIPTOR.fields_by_name["clip"].number
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


def proto_of_call(header: bytes) -> bytes:
    """The DecodeRequest of a decode call's header."""
    return proto_of_body(unpack_body(header)[1])


def proto_of_body(body: dict[str, Any]) -> bytes:
    """The DecodeRequest of what unpack_body found in a decode call's header; takes the body apart."""
    message = pb.DecodeRequest(attempt=body["attempt"], deadline_s=body["deadline_s"], alone=body.get("alone", False))
    request = body["request"]
    sampling, crop = request.pop("sampling"), request.pop("crop")
    _fill(message.request, request)
    for policy in (sampling, crop):
        name = policy.pop("policy")
        if name == "explicit":
            _fill(message.request.explicit_box, policy["box"])
        else:
            policy_message = getattr(message.request, name)
            policy_message.SetInParent()  # of a policy without fields too
            _fill(policy_message, _with_ends(policy) if name == "random_resized" else policy)
    return message.SerializeToString()


def header_of_call(data: bytes) -> bytes:
    """The decode call's header of a DecodeRequest. Raises BadRequest for bytes that are none."""
    message = _parse(pb.DecodeRequest(), data)
    request = _plain(message.request)
    request["sampling"] = _policy(message.request, "sampling")
    request["crop"] = _policy(message.request, "crop")
    body = {"attempt": message.attempt, "deadline_s": message.deadline_s, "request": request}
    return pack_body("decode", body | {"alone": True} if message.alone else body)


def proto_of_reply(header: bytes, pixels: memoryview | None) -> bytes:
    """The DecodeReply of a clip's, an error's or a server's header; its pixels are copied once."""
    kind, body = unpack_body(header)
    message = pb.DecodeReply(attempt=body["attempt"], server=body["server"], queued=body.get("queued", 0))
    if kind == "error":
        message.error.code, message.error.message = body["code"], body["message"]
        return message.SerializeToString()
    if kind == "server":
        del body["attempt"], body["dataset"]
        _fill(message.notice, body)
        return message.SerializeToString()
    info = body["info"]
    colour, box, placed = info.pop("colour"), info.pop("box"), info.pop("placed", None)
    clip = pb.Clip()
    _fill(clip, {**info, **colour})
    _fill(clip.box, box)
    if placed is not None:
        _fill(clip.placed, placed)
    said = clip.SerializeToString()
    pixels_head = _length_head(_PIXELS, len(pixels or b""))
    clip_bytes = len(said) + len(pixels_head) + len(pixels or b"")
    head = message.SerializeToString() + _length_head(_CLIP, clip_bytes) + said + pixels_head
    return b"".join((head, pixels or b""))


def header_of_reply(data: bytes) -> tuple[bytes, memoryview]:
    """The header of a DecodeReply and a view of its pixels in `data`. Raises BadRequest for bytes that are none."""
    said, pixels = _cut_pixels(data)
    message = _parse(pb.DecodeReply(), said)
    body: dict[str, Any] = {"attempt": message.attempt, "server": message.server}
    outcome = message.WhichOneof("outcome")
    if outcome == "error":
        return pack_body("error", {**body, "code": message.error.code, "message": message.error.message}), pixels
    if outcome == "notice":
        return pack_body("server", {"attempt": message.attempt, **_plain(message.notice)}), pixels
    if outcome is None:
        raise BadRequest("wire: a reply has neither clip nor error nor notice")
    info = _plain(message.clip)
    del info["pixels"]
    info["colour"] = {key: info.pop(key) for key in ("matrix", "full_range")}
    info["box"] = _plain(message.clip.box)
    info["placed"] = _plain(message.clip.placed) if message.clip.HasField("placed") else None
    info["stage_s"] = dict(message.clip.stage_s)
    return pack_body("clip", {**body, "queued": message.queued, "info": info}), pixels


def proto_of_server(header: bytes) -> bytes:
    """The DescribeReply of a server's header."""
    _, body = unpack_body(header)
    del body["attempt"], body["dataset"]  # a call that has one answer needs no name
    message = pb.DescribeReply()
    _fill(message, body)
    return message.SerializeToString()


def header_of_server(data: bytes, *, attempt: int) -> bytes:
    """The server's header of a DescribeReply to a describe call. Raises BadRequest for bytes that are none."""
    return pack_body("server", {"attempt": attempt, **_plain(_parse(pb.DescribeReply(), data))})


def _parse(message: M, data: bytes) -> M:
    """The message from its bytes; like an unknown field of a header, one of a message is refused, not ignored."""
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise BadRequest(f"wire: {len(data)} bytes are no {message.DESCRIPTOR.name}") from None
    seen_bytes = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != seen_bytes:
        raise BadRequest(f"wire: {message.DESCRIPTOR.name} has fields that are not in decode.proto")
    return message


def _fill(message: Message, values: Mapping[str, Any]) -> None:
    """Set the fields of these names; words of enums by name, lists and maps whole."""
    enums, _ = _shape(message.DESCRIPTOR)
    for name, value in values.items():
        if name in enums:
            setattr(message, name, enums[name].number(value))
        elif isinstance(value, dict):
            getattr(message, name).update(value)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)


def _plain(message: Message) -> dict[str, Any]:
    """All fields that are no messages or maps, as a header says them."""
    enums, others = _shape(message.DESCRIPTOR)
    values = {name: convert(getattr(message, name)) for name, convert in others}
    return values | {name: words.word(getattr(message, name)) for name, words in enums.items()}


def _policy(request: pb.ClipRequest, oneof: str) -> dict[str, Any] | None:
    """The policy that is set, None if none is: then the header is refused where it is unpacked."""
    name = request.WhichOneof(oneof)
    if name is None:
        return None
    values = _plain(getattr(request, name))
    if name == "explicit_box":
        return {"policy": "explicit", "box": values}
    if name == "random_resized":
        values = {key: [values[f"{key}_low"], values[f"{key}_high"]] for key in ("scale", "ratio")}
    return {"policy": name, **values}


def _with_ends(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Ranges as the two fields that protobuf has for each."""
    return {
        f"{key}_{end}": value for key, pair in policy.items() for end, value in zip(("low", "high"), pair, strict=True)
    }


class _Words:
    """The words of an enum as headers spell them: its values' names without the enum's, in lower case."""

    def __init__(self, enum: EnumDescriptor) -> None:
        prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
        self._words = {value.number: value.name.removeprefix(prefix).lower() for value in enum.values}
        self._numbers = {word: number for number, word in self._words.items()}

    def word(self, number: int) -> str:
        return self._words.get(number, str(number))

    def number(self, word: str) -> int:
        return self._numbers[word]


_Shape = tuple[dict[str, _Words], list[tuple[str, Callable[[Any], Any]]]]


@cache
def _shape(descriptor: Descriptor) -> _Shape:
    """The enums of a message, and its other fields with what makes a plain value of theirs."""
    enums: dict[str, _Words] = {}
    others: list[tuple[str, Callable[[Any], Any]]] = []
    for field in descriptor.fields:
        if field.enum_type is not None:
            enums[field.name] = _Words(field.enum_type)
        elif field.message_type is None:
            others.append((field.name, list if _repeated(field) else _itself))
    return enums, others


def _repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _itself(value: Any) -> Any:
    return value


def _cut_pixels(data: bytes) -> tuple[bytes, memoryview]:
    """A DecodeReply without the pixels of its clip, and those."""
    view, pixels = memoryview(data), memoryview(b"")
    said = bytearray()
    for number, kind, whole, value in _fields(view):
        if (number, kind) != (_CLIP, _BYTES):
            said += whole
            continue
        clip_said = bytearray()
        for inner_number, inner_kind, inner_whole, inner_value in _fields(value):
            if (inner_number, inner_kind) == (_PIXELS, _BYTES):
                pixels = inner_value
            else:
                clip_said += inner_whole
        said += _length_head(_CLIP, len(clip_said)) + clip_said
    return bytes(said), pixels


def _fields(view: memoryview) -> Iterator[tuple[int, int, memoryview, memoryview]]:
    """(number, wire type, all of it, value) of each field of a message. Raises BadRequest for bytes that are none."""
    at = 0
    while at < len(view):
        start = at
        key, at = _read_varint(view, at)
        kind = key & 7
        if kind == _VARINT:
            value_at = at
            _, at = _read_varint(view, at)
        elif kind == _BYTES:
            length, value_at = _read_varint(view, at)
            at = value_at + length
        elif kind in _FIXED_BYTES:
            value_at, at = at, at + _FIXED_BYTES[kind]
        else:
            raise BadRequest(f"wire: a reply has a field of wire type {kind}")
        if at > len(view):
            raise BadRequest("wire: a reply ends within a field")
        yield key >> 3, kind, view[start:at], view[value_at:at]


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends) of the varint that begins here."""
    value = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise BadRequest("wire: a reply ends within a number, or has one of more than 64 bits")


def _length_head(number: int, length: int) -> bytes:
    """What stands before a field's `length` bytes."""
    return _varint(number << 3 | _BYTES) + _varint(length)


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes((low | 0x80,)) + _varint(rest) if rest else bytes((low,))
