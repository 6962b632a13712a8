"""How calls and replies are spelled: typed msgpack in an envelope that says which version, sealed. Knows no sockets.

The one file between the contract's values and their bytes; every transport hands these over (gRPC's own spelling of
them is proto_wire.py's). msgspec checks types and names while it reads, the values check themselves. A call with a
field or a version that is not known is refused, for an ignored one would give another clip; a reply may say more than
its reader knows. A message ends with its CRC-32: one changed bit in a seed or an attempt would be another, valid one.
Source of the format: msgpack.org, spec 2.0.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import force_setattr, replace

from framefeed.clip import ClipInfo
from framefeed.errors import BadRequest, FramefeedError, WrongVersion, error_from_code
from framefeed.request import ClipRequest
from framefeed.show_value import one_line, show_value

WIRE_VERSION = 2
MAX_HEADER_BYTES = 1 << 16
MAX_RUN_NAME = 64
_CRC_BYTES = 4
MAX_NAME_CHARS = 255  # of what a server says of itself
MAX_SIBLINGS = 256
_RUN_NAME = re.compile(rf"[\w.-]{{0,{MAX_RUN_NAME}}}", re.ASCII)

Count = Annotated[int, Meta(ge=0)]
WorkClass = Literal["train", "eval"]


class DecodeCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="decode"):
    """A request on its way: `attempt` names this try among all of a client's, `deadline_s` is the time it still has.

    `alone` asks the server to decode it together with no other clip: a try of it failed, or of one beside it. Servers
    share their time between `run`s and serve `work_class` eval first. `dataset` is the identity of what the run reads,
    "" while it knows none; a server of another one says that the clip is not here.
    """

    attempt: Count
    deadline_s: float
    request: ClipRequest
    alone: bool = False
    run: str = ""
    work_class: WorkClass = "train"
    dataset: str = ""

    def __post_init__(self) -> None:
        check_run(self.run)
        if self.work_class not in ("train", "eval"):
            raise BadRequest(f"call: work_class is {show_value(self.work_class)}, wanted 'train' or 'eval'")


class DescribeCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="describe"):
    """Asks a server who it is; `attempt` is echoed, and not 0: that is a server's who says so unasked."""

    attempt: Annotated[int, Meta(ge=1)]


class CancelCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="cancel"):
    """The clip of a decode call's `attempt` is not wanted any more. It has no reply of its own: the decode call has."""

    attempt: Count


class Load(Struct, frozen=True, kw_only=True):
    """How busy a server was when it replied. `queued` requests waited there; `credits` are the requests that this
    client may have there at once (0: it does not say); `front_s` is how long the call and its answer waited for the
    front's thread, `front_busy` the share of its time that this thread worked lately, 0 to 1.
    """

    queued: Count = 0
    credits: Count = 0
    front_s: float = 0.0
    front_busy: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.front_s) and math.isfinite(self.front_busy)):
            raise BadRequest(f"load: the front's times are {self.front_s} and {self.front_busy}, wanted finite ones")


_UNSAID = Load()


class ClipReply(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="clip"):
    """A clip is ready; its pixels follow as the next frame of the message."""

    attempt: Count
    server: str
    info: ClipInfo
    load: Load = _UNSAID

    def __post_init__(self) -> None:
        _check_names(self.server)


class ErrorReply(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="error"):
    """There is no clip, and why: a code of the error tree and one line for people."""

    attempt: Count
    server: str
    code: str
    message: str
    load: Load = _UNSAID

    def __post_init__(self) -> None:
        _check_names(self.server, self.code)
        force_setattr(self, "message", one_line(self.message))  # at its making, and of whoever sends another

    def error(self) -> FramefeedError:
        """The error as the client raises it, naming the server."""
        return error_from_code(self.code, f"{self.message} (server {self.server})")


class ServerReply(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="server"):
    """Who a server is: its id, what it decodes with, the identity of its data set and how many videos that has, its
    capacity and its state, the largest clip that it has room for (0: it does not say), its framefeed's version, and
    what is this process's alone, by which two addresses of one server are known.

    `siblings` are the other fronts of its box as it binds them, over the transport of the connection it says it on. Of
    tcp and gRPC only the port is meant: whoever reached this one reaches them at the same host. There its own metrics
    are at `metrics_port`, 0 if not there.
    """

    attempt: Count
    server: str
    fingerprint: str
    videos: Count
    workers: Count
    state: str
    dataset: str = ""
    max_clip_bytes: Count = 0
    software: str = ""
    instance: str = ""
    siblings: tuple[str, ...] = ()
    metrics_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    load: Load = _UNSAID

    def __post_init__(self) -> None:
        _check_names(self.server, self.fingerprint, self.state, self.dataset, self.software, *self.siblings)
        if len(self.siblings) > MAX_SIBLINGS:
            raise BadRequest(f"reply: {len(self.siblings)} siblings, wanted at most {MAX_SIBLINGS}")


Call = DecodeCall | DescribeCall | CancelCall
Reply = ClipReply | ErrorReply | ServerReply


# What stands between the seal and the message. A server's front adds the load to a reply that a worker packed.


class _CallEnvelope(Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    call: Call


class _ReplyEnvelope(Struct, array_like=True):
    version: int
    reply: Reply
    load: Load = _UNSAID


class _Named(Struct):
    """What messages of all versions say."""

    kind: str = ""
    attempt: Count = 0


class _AnyEnvelope(Struct, array_like=True):
    version: int
    message: _Named


class _VersionOne(Struct):
    """Version 1 was one map without an envelope."""

    v: int
    kind: str = ""
    attempt: Count = 0


_ENCODER = msgspec.msgpack.Encoder()
_CALLS = msgspec.msgpack.Decoder(_CallEnvelope)
_REPLIES = msgspec.msgpack.Decoder(_ReplyEnvelope)
_ANY = msgspec.msgpack.Decoder(_AnyEnvelope)
_NAMED = msgspec.msgpack.Decoder(_Named)
_ONE = msgspec.msgpack.Decoder(_VersionOne)


def check_run(run: str) -> None:
    """Raises BadRequest for what no run may be called: it becomes the label of a metric."""
    if run and not _RUN_NAME.fullmatch(run):
        wanted = f"wanted at most {MAX_RUN_NAME} of the characters A-Z a-z 0-9 _ . -"
        raise BadRequest(f"call: run is {show_value(run)}, {wanted}")


def _check_names(*names: str) -> None:
    """What a server calls itself and its parts becomes text of log lines and labels of metrics. Raises BadRequest."""
    for name in names:
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise BadRequest(
                f"reply: a name is {show_value(name)}, wanted at most {MAX_NAME_CHARS} printable characters"
            )


def pack_call(call: Call) -> bytes:
    """A message from client to server, sealed."""
    return seal(_ENCODER.encode((WIRE_VERSION, call)))


def unpack_call(header: bytes | memoryview) -> Call:
    """The call in a sealed message. Raises BadRequest naming what is wrong with it, WrongVersion for another one's."""
    packed = unseal(header)
    try:
        envelope = _CALLS.decode(packed)
    except Exception as error:
        _refuse(packed, error)
    _check_version(envelope.version)
    return envelope.call


def pack_reply(reply: Reply) -> bytes:
    """A message from server to client, sealed; a ClipReply's pixels go in a frame of their own."""
    return add_load(pack_unsealed(reply), reply.load)


def pack_unsealed(reply: Reply) -> bytes:
    """A reply without its load, for add_load: what a worker hands to its front."""
    return _ENCODER.encode(reply if reply.load is _UNSAID else replace(reply, load=_UNSAID))


def attempt_of_unsealed(packed: bytes) -> int | None:
    """The attempt that a reply is to, as a worker packed it; None if it is none."""
    try:
        return _NAMED.decode(packed).attempt
    except Exception:  # of whatever a worker may have made
        return None


def add_load(packed: bytes, load: Load) -> bytes:
    """The sealed message of a reply that pack_unsealed packed, with this load; the reply is not unpacked for it."""
    return seal(_ENCODER.encode((WIRE_VERSION, Raw(packed), load)))


def unpack_reply(header: bytes | memoryview) -> Reply:
    """The reply in a sealed message. Raises BadRequest naming what is wrong with it, WrongVersion for another one's."""
    packed = unseal(header)
    try:
        envelope = _REPLIES.decode(packed)
    except Exception as error:
        _refuse(packed, error)
    _check_version(envelope.version)
    force_setattr(envelope.reply, "load", envelope.load)  # it is this message's alone; a copy would be checked again
    return envelope.reply


def peek(header: bytes | memoryview) -> tuple[str, int]:
    """Kind and attempt of a call or reply, as far as they can be read, of another version too; otherwise "" and 0.

    So that even one that is refused is accounted for.
    """
    try:
        _, named = _look(unseal(header))
    except BadRequest:
        return "", 0
    return named.kind, named.attempt


def peek_attempt(header: bytes | memoryview) -> int:
    """As peek, the attempt alone."""
    return peek(header)[1]


def request_from_map(body: Mapping[str, Any]) -> ClipRequest:
    """The request that plain maps, lists, numbers and strings spell. Raises BadRequest naming what is wrong with it."""
    try:
        return msgspec.convert(body, ClipRequest)
    except Exception as error:
        raise BadRequest(_why(error)) from None


def map_of_request(request: ClipRequest) -> dict[str, Any]:
    """The request as plain maps, tuples, numbers and strings: what request_from_map reads."""
    body: dict[str, Any] = msgspec.to_builtins(request)
    return body


def seal(packed: bytes) -> bytes:
    """The message, then its CRC-32 in four bytes, most significant first."""
    return packed + zlib.crc32(packed).to_bytes(_CRC_BYTES)


def unseal(header: bytes | memoryview) -> bytes | memoryview:
    """The message of a sealed one. Raises BadRequest if it is too long or not as it was sealed."""
    if len(header) > MAX_HEADER_BYTES:
        raise BadRequest(f"wire: header has {len(header)} bytes, wanted at most {MAX_HEADER_BYTES}")
    packed, crc = header[:-_CRC_BYTES], int.from_bytes(header[-_CRC_BYTES:])
    if len(header) < _CRC_BYTES or zlib.crc32(packed) != crc:
        raise BadRequest(f"wire: the {len(header)} bytes of the header do not end with their CRC-32")
    return packed


def _check_version(version: int) -> None:
    if version != WIRE_VERSION:
        kind = WrongVersion if version > 0 else BadRequest  # 0: it says none
        raise kind(f"wire: version is {version}, wanted {WIRE_VERSION}")


def _look(packed: bytes | memoryview) -> tuple[int, _Named | _VersionOne]:
    """Version and name of a message of any version. Raises BadRequest if it says neither."""
    for decoder in (_ANY, _ONE):
        try:
            found: _AnyEnvelope | _VersionOne = decoder.decode(packed)
        except Exception:  # noqa: S112  # the other may read it
            continue
        return (found.version, found.message) if isinstance(found, _AnyEnvelope) else (found.v, found)
    raise BadRequest("wire: the header is of no version")


def _refuse(packed: bytes | memoryview, error: Exception) -> NoReturn:
    """Raise what is wrong with a message that could not be read: its version, or else what the error says."""
    try:
        version, _ = _look(packed)
    except BadRequest:
        version = WIRE_VERSION
    _check_version(version)
    raise BadRequest(_why(error)) from None


def _why(error: Exception) -> str:
    """One printable line; all that may come out of reading what others wrote is their mistake."""
    if isinstance(error, FramefeedError):
        why = str(error)
    elif isinstance(error, msgspec.MsgspecError):
        why = f"wire: {error}"
    else:  # RecursionError, MemoryError, OverflowError, …
        why = f"wire: the message does not read ({type(error).__name__})"
    return one_line(why)
