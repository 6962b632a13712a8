"""How requests and replies are spelled: one msgpack header with a version, then raw pixels as a frame of their own.

The one file that knows the spelling; it knows no sockets. Nothing is guessed: an unknown version, kind, field or
policy is refused, and lengths are bounded before anything is built. A header ends with its CRC-32: one changed bit in
a seed or an attempt would be another, valid message. Source of the format: msgpack.org, spec 2.0.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, cast

import msgpack

from framefeed.clip import ClipInfo, Colour
from framefeed.crops import (
    Box,
    CentreCrop,
    Crop,
    ExplicitBox,
    Letterbox,
    MultiScaleCrop,
    RandomCrop,
    RandomResizedCrop,
    ResizedCentreCrop,
    ViewCrop,
    WholeFrame,
)
from framefeed.errors import BadRequest, FramefeedError, error_from_code
from framefeed.request import ClipRequest
from framefeed.sampling import (
    AtFrames,
    AtSeconds,
    Dense,
    DenseView,
    FrameWindow,
    Linspace,
    Resampled,
    Sampling,
    Segments,
)
from framefeed.sampling_rules import PublishedRule

WIRE_VERSION = 1
MAX_HEADER_BYTES = 1 << 16
_CRC_BYTES = 4

V = TypeVar("V")

SAMPLING_POLICIES: dict[str, type[Any]] = {
    "segments": Segments,
    "linspace": Linspace,
    "dense": Dense,
    "dense_view": DenseView,
    "frame_window": FrameWindow,
    "resampled": Resampled,
    "at_seconds": AtSeconds,
    "at_frames": AtFrames,
    "published": PublishedRule,
}
CROP_POLICIES: dict[str, type[Any]] = {
    "random_resized": RandomResizedCrop,
    "resized_centre": ResizedCentreCrop,
    "multi_scale": MultiScaleCrop,
    "random": RandomCrop,
    "centre": CentreCrop,
    "view": ViewCrop,
    "whole": WholeFrame,
    "letterbox": Letterbox,
    "explicit": ExplicitBox,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeCall:
    """A request on its way: `attempt` names this try among all of a client's, `deadline_s` is the time it still has.

    `alone` asks the server to decode it together with no other clip: a try of it failed, or of one beside it.
    """

    attempt: int
    deadline_s: float
    request: ClipRequest
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeCall:
    """Asks a server who it is; `attempt` is echoed."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a server was when it replied. `queued` requests waited there; `credits` are the requests that this
    client may have there at once (0: it does not say); `front_s` is how long the call and its answer waited for the
    front's thread, `front_busy` the share of its time that this thread worked lately, 0 to 1.
    """

    queued: int = 0
    credits: int = 0
    front_s: float = 0.0
    front_busy: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipReply:
    """A clip is ready; its pixels follow as the next frame of the message. `queued` is the server's queue length."""

    attempt: int
    server: str
    queued: int
    info: ClipInfo
    load: Load = field(default_factory=Load)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReply:
    """There is no clip, and why: a code of the error tree and one line for people."""

    attempt: int
    server: str
    code: str
    message: str
    load: Load = field(default_factory=Load)

    def error(self) -> FramefeedError:
        """The error as the client raises it, naming the server."""
        return error_from_code(self.code, f"{self.message} (server {self.server})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReply:
    """Who a server is: its id, what it decodes with, how many videos it has, its capacity and its state."""

    attempt: int
    server: str
    fingerprint: str
    videos: int
    workers: int
    state: str


Call = DecodeCall | DescribeCall
Reply = ClipReply | ErrorReply | ServerReply


def pack_call(call: Call) -> bytes:
    """The header of a message from client to server."""
    if isinstance(call, DescribeCall):
        return pack_body("describe", {"attempt": call.attempt})
    request = map_of_request(call.request)
    body = {"attempt": call.attempt, "deadline_s": call.deadline_s, "request": request}
    return pack_body("decode", body | {"alone": True} if call.alone else body)


def map_of_request(request: ClipRequest) -> dict[str, Any]:
    """The request as plain maps, tuples, numbers and strings: what request_from_map reads."""
    body = _plain(request)
    body["sampling"] = _policy(request.sampling, SAMPLING_POLICIES)
    body["crop"] = _policy(request.crop, CROP_POLICIES)
    return body


def unpack_call(header: bytes | memoryview) -> Call:
    """The call in a header. Raises BadRequest naming what is wrong with it."""
    kind, body = unpack_body(header)
    if kind == "describe":
        return _build(DescribeCall, body)
    if kind != "decode":
        raise BadRequest(f"wire: kind is {kind!r}, wanted 'decode' or 'describe'")
    request = _mapping(body, "request")
    body["request"] = request_from_map(request)
    return _build(DecodeCall, body)


def request_from_map(body: Mapping[str, Any]) -> ClipRequest:
    """The request that plain maps, lists, numbers and strings spell. Raises BadRequest naming what is wrong with it."""
    request = dict(body)
    request["sampling"] = _build_policy(request, "sampling", SAMPLING_POLICIES)
    request["crop"] = _build_policy(request, "crop", CROP_POLICIES)
    return _build(ClipRequest, request)


def peek_attempt(header: bytes | memoryview) -> int:
    """The attempt of a header that unpack_call refused, so that even a bad request gets its reply; 0 if unreadable."""
    try:
        attempt = unpack_body(header)[1].get("attempt")
    except BadRequest:
        return 0
    return attempt if isinstance(attempt, int) and not isinstance(attempt, bool) else 0


def pack_reply(reply: Reply) -> bytes:
    """The header of a message from server to client; a ClipReply's pixels go in a frame of their own."""
    body = {f.name: getattr(reply, f.name) for f in fields(reply)}
    if not isinstance(reply, ServerReply):
        body["load"] = _plain(reply.load)
    if isinstance(reply, ClipReply):
        info = {f.name: getattr(reply.info, f.name) for f in fields(reply.info)}
        info["box"] = _plain(reply.info.box)
        info["colour"] = _plain(reply.info.colour)
        info["placed"] = None if reply.info.placed is None else _plain(reply.info.placed)
        return pack_body("clip", {**body, "info": info})
    return pack_body("error" if isinstance(reply, ErrorReply) else "server", body)


def unpack_reply(header: bytes | memoryview) -> Reply:
    """The reply in a header. Raises BadRequest naming what is wrong with it."""
    kind, body = unpack_body(header)
    if "load" in body:
        body["load"] = _build(Load, _mapping(body, "load"))
    if kind == "error":
        return _build(ErrorReply, body)
    if kind == "server":
        return _build(ServerReply, body)
    if kind != "clip":
        raise BadRequest(f"wire: kind is {kind!r}, wanted 'clip', 'error' or 'server'")
    info = _mapping(body, "info")
    info["pts_s"] = _tuple(info.get("pts_s"))
    info["padding"] = _tuple(info.get("padding"))
    if info.get("placed") is not None:
        info["placed"] = _build(Box, _mapping(info, "placed"))
    info["box"] = _build(Box, _mapping(info, "box"))
    info["colour"] = _build(Colour, _mapping(info, "colour"))
    body["info"] = _build(ClipInfo, info)
    return _build(ClipReply, body)


def pack_body(kind: str, body: Mapping[str, Any]) -> bytes:
    """A header of this kind; what stands in it is judged by who unpacks it."""
    return sealed(msgpack.packb({"v": WIRE_VERSION, "kind": kind, **body}))


def sealed(packed: bytes) -> bytes:
    """The header of a packed map: the map, then its CRC-32 in four bytes, most significant first."""
    return packed + zlib.crc32(packed).to_bytes(_CRC_BYTES)


def unpack_body(header: bytes | memoryview) -> tuple[str, dict[str, Any]]:
    """Kind and fields of a header as plain maps, lists, numbers and strings. Raises BadRequest if it is none."""
    if len(header) > MAX_HEADER_BYTES:
        raise BadRequest(f"wire: header has {len(header)} bytes, wanted at most {MAX_HEADER_BYTES}")
    packed, crc = header[:-_CRC_BYTES], int.from_bytes(header[-_CRC_BYTES:])
    if len(header) < _CRC_BYTES or zlib.crc32(packed) != crc:
        raise BadRequest(f"wire: the {len(header)} bytes of the header do not end with their CRC-32")
    try:
        body = msgpack.unpackb(packed, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise BadRequest(f"wire: header is not msgpack ({type(error).__name__})") from None
    if not isinstance(body, dict):
        raise BadRequest(f"wire: header is a {type(body).__name__}, wanted a map")
    version = body.pop("v", None)
    if version != WIRE_VERSION:
        raise BadRequest(f"wire: version is {version!r}, wanted {WIRE_VERSION}")
    return body.pop("kind", None), body


def _plain(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _policy(policy: Sampling | Crop, known: dict[str, type[Any]]) -> dict[str, Any]:
    name = next(name for name, kind in known.items() if type(policy) is kind)
    body = _plain(policy)
    if isinstance(policy, ExplicitBox):
        body["box"] = _plain(policy.box)
    return {"policy": name, **body}


def _build_policy(request: dict[str, Any], key: str, known: dict[str, type[Any]]) -> Any:
    body = _mapping(request, key)
    name = body.pop("policy", None)
    if not isinstance(name, str) or name not in known:
        raise BadRequest(f"wire: {key} policy is {name!r}, wanted one of {sorted(known)}")
    body = {key: _tuple(value) for key, value in body.items()}
    if name == "explicit":
        body["box"] = _build(Box, _mapping(body, "box"))
    return _build(known[name], body)


def _mapping(body: dict[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key)
    if not isinstance(value, dict):
        raise BadRequest(f"wire: {key} is a {type(value).__name__}, wanted a map")
    return dict(value)


def _tuple(value: Any) -> Any:
    """msgpack's lists are the contract's tuples; anything else is left for the type check to refuse."""
    return tuple(value) if isinstance(value, list) else value


def _build(kind: type[V], body: dict[str, Any]) -> V:
    """The dataclass from its fields; a missing, unknown or wrongly typed one is a BadRequest that names it."""
    form = _form(cast(Any, kind))
    if not body.keys() <= form.keys():
        raise BadRequest(f"wire: {kind.__name__} has no field {sorted(map(str, body.keys() - form.keys()))[0]!r}")
    for name, value in body.items():
        wanted, is_one = form[name]
        if not is_one(value):
            raise BadRequest(f"wire: {kind.__name__}.{name} is {value!r:.60}, wanted {wanted}")
    try:
        return kind(**body)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"wire: {kind.__name__}: {error}") from None


@cache
def _form(kind: type[Any]) -> dict[str, tuple[str, Callable[[Any], bool]]]:
    """How the fields of a dataclass are annotated, and whether a value is what that says."""
    return {f.name: (str(f.type), _check_of(str(f.type))) for f in fields(kind)}


# Exactly: a bool is no int.
_TYPES: dict[str, set[type[Any]]] = {"int": {int}, "float": {float, int}, "str": {str}, "bool": {bool}}


def _check_of(wanted: str) -> Callable[[Any], bool]:
    if wanted.startswith("tuple["):
        of = wanted.removeprefix("tuple[").removesuffix("]").split(", ")
        kinds, length = _TYPES[of[0]], None if of[-1] == "..." else len(of)
        return lambda v: type(v) is tuple and {*map(type, v)} <= kinds and length in (None, len(v))
    if wanted.startswith("dict[str, float]"):
        return lambda v: type(v) is dict and {*map(type, v.values())} <= {float}
    if wanted in _TYPES:
        kinds = _TYPES[wanted]
        return lambda v: type(v) in kinds
    return lambda _: True
