"""Sealed messages of wire.py as the protobuf messages of proto/framefeed/v1 and back: for gRPC. It knows no sockets.

Fields have the same names on both sides and what is one of several is a oneof of their names, so one walk over a
message's description does for all. Only the spelling changes: what a call says is judged by who unpacks it, as with
every transport. Pixels do not pass through here: see grpc_pixels.py.
Source of the format: protobuf.dev/programming-guides/proto3.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from framefeed.errors import BadRequest, FramefeedError
from framefeed.v1 import decode_pb2 as pb
from framefeed.wire import WIRE_VERSION, seal, unseal

M = TypeVar("M", bound=Message)

_OUTCOMES = {"clip": "clip", "error": "error", "server": "description"}  # kind of a reply: its field
_KINDS = {field: kind for kind, field in _OUTCOMES.items()}


def proto_of_call(header: bytes) -> bytes:
    """The Call of a sealed one. Raises BadRequest for a header that is none."""
    try:
        version, body = msgspec.msgpack.decode(unseal(header))
        message = pb.Call(version=version, attempt=body.pop("attempt"))
        _fill_part(message, body.pop("kind"), body)
    except Exception as error:
        raise _misfit(error) from None
    return message.SerializeToString()


def header_of_call(data: bytes) -> bytes:
    """The sealed call of a Call, one that unpack_call refuses if it asks for nothing or has fields that are not in
    decode.proto: whoever refuses it knows its attempt. Raises BadRequest for bytes that are no Call at all.
    """
    message = _parse(pb.Call(), data)
    body: dict[str, Any] = {"attempt": message.attempt}
    kind = message.WhichOneof("ask")
    if kind is not None:
        body |= {"kind": kind, **_plain(getattr(message, kind))}
    seen_bytes = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != seen_bytes:
        body["(not in decode.proto)"] = None
    return seal(msgspec.msgpack.encode((message.version, body)))


def header_of_no_call(why: str) -> bytes:
    """A sealed message that unpack_call refuses with these words: it stands for bytes that are no Call."""
    return seal(msgspec.msgpack.encode((WIRE_VERSION, {"kind": why})))


def proto_of_reply(header: bytes) -> bytes:
    """The Reply of a sealed one, without pixels. Raises BadRequest for a header that is none."""
    try:
        version, body, load = msgspec.msgpack.decode(unseal(header))
        named = {"attempt": body.pop("attempt"), "server": body.pop("server")}
        message = pb.Reply(version=version, load=pb.Load(**load), **named)
        kind = body.pop("kind")
        _fill_part(message, _OUTCOMES[kind], body["info"] if kind == "clip" else body)
    except Exception as error:
        raise _misfit(error) from None
    return message.SerializeToString()


def header_of_reply(data: bytes | memoryview) -> bytes:
    """The sealed reply of a Reply without pixels. Raises BadRequest for bytes that are none."""
    message = _parse(pb.Reply(), bytes(data))
    outcome = message.WhichOneof("outcome")
    if outcome is None:
        raise BadRequest("wire: Reply says nothing, wanted clip, error or description")
    said = _plain(getattr(message, outcome))
    body = {"kind": _KINDS[outcome], "attempt": message.attempt, "server": message.server}
    body |= {"info": said} if outcome == "clip" else said
    return seal(msgspec.msgpack.encode((message.version, body, _plain(message.load))))


def _misfit(error: Exception) -> FramefeedError:
    """What went wrong with a header of ours: all that it can say has its place in decode.proto."""
    if isinstance(error, FramefeedError):
        return error
    return BadRequest(f"wire: the header does not fit decode.proto ({type(error).__name__})")


def _parse(message: M, data: bytes) -> M:
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise BadRequest(f"wire: {len(data)} bytes are no {message.DESCRIPTOR.name}") from None
    return message


def _fill_part(message: Message, name: str, values: dict[str, Any]) -> None:
    """Set a field that is a message, even if nothing in it differs from what is unsaid."""
    part: Message = getattr(message, name)
    part.SetInParent()
    for key, value in values.items():
        if isinstance(value, dict) and key in part.DESCRIPTOR.oneofs_by_name:
            policy = dict(value)
            _fill_part(part, policy.pop("policy"), policy)
        elif isinstance(value, dict) and key in _shape(part.DESCRIPTOR)[1]:
            _fill_part(part, key, value)
        elif isinstance(value, dict):
            getattr(part, key).update(value)
        elif isinstance(value, list):
            getattr(part, key).extend(value)
        elif value is not None:
            setattr(part, key, value)


def _plain(message: Message) -> dict[str, Any]:
    """What a message says as maps, lists, numbers and strings, with the names of wire.py; parts that are not there are
    left out.
    """
    plains, parts, oneofs = _shape(message.DESCRIPTOR)
    values = {name: get(getattr(message, name)) for name, get in plains}
    for name in parts:
        if message.HasField(name):
            values[name] = _plain(getattr(message, name))
    for name in oneofs:
        kind = message.WhichOneof(name)
        if kind is not None:
            values[name] = {"policy": kind, **_plain(getattr(message, kind))}
    return values


def _itself(value: Any) -> Any:
    return value


@cache
def _shape(descriptor: Descriptor) -> tuple[list[tuple[str, Any]], list[str], list[str]]:
    """The fields of a message: plain ones and what makes a plain value of each, messages, and oneofs of policies."""
    plains: list[tuple[str, Any]] = []
    parts: list[str] = []
    for field in descriptor.fields:
        if field.is_repeated:
            plains.append((field.name, dict if field.message_type is not None else list))
        elif field.message_type is None:
            plains.append((field.name, _itself))
        elif field.has_presence and (field.containing_oneof is None or field.containing_oneof.name[0] == "_"):
            parts.append(field.name)
    oneofs = [oneof.name for oneof in descriptor.oneofs if oneof.name[0] != "_"]
    return plains, parts, oneofs
