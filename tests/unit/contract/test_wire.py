"""The wire says what was meant, and refuses what it does not know."""

import contextlib
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box, ExplicitBox, RandomResizedCrop, ResizedCentreCrop
from framefeed.errors import BadRequest, Busy, Permanent
from framefeed.sampling import Dense, Segments
from framefeed.wire import (
    MAX_HEADER_BYTES,
    ClipReply,
    DecodeCall,
    DescribeCall,
    ErrorReply,
    ServerReply,
    pack_call,
    pack_reply,
    peek_attempt,
    unpack_call,
    unpack_reply,
)
from tests.unit.contract.test_request import REQUEST

CALL = DecodeCall(attempt=7, deadline_s=2.5, request=REQUEST)
INFO = ClipInfo(
    pts_s=(1.0, 1.25), box=Box(x_px=2, y_px=4, width_px=100, height_px=50), flipped=True,
    colour=Colour(matrix="bt709", full_range=True), read_bytes=1000, fed_packets=9, stage_s={"read": 0.5},
)  # fmt: skip
REPLIES = [
    ClipReply(attempt=7, server="a", queued=3, info=INFO),
    ErrorReply(attempt=7, server="a", code="busy", message="no room"),
    ServerReply(attempt=7, server="a", fingerprint="f", videos=3, workers=2, state="ready"),
]


@pytest.mark.parametrize("sampling", [Segments(frames=4, jitter=True), Dense(frames=16, stride=4, jitter=False)])
@pytest.mark.parametrize(
    "crop",
    [
        RandomResizedCrop(scale=(0.2, 0.9)),
        ResizedCentreCrop(ratio=1.5),
        ExplicitBox(box=Box(x_px=1, y_px=2, width_px=3, height_px=4)),
    ],
)
def test_calls_come_back_as_they_were(sampling: Any, crop: Any) -> None:
    call = replace(CALL, request=replace(REQUEST, sampling=sampling, crop=crop))
    assert unpack_call(pack_call(call)) == call


def test_describe_comes_back_as_it_was() -> None:
    assert unpack_call(pack_call(DescribeCall(attempt=2**63))) == DescribeCall(attempt=2**63)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_replies_come_back_as_they_were(reply: Any) -> None:
    assert unpack_reply(pack_reply(reply)) == reply


def _spelled(path: str, value: object) -> bytes:
    """CALL's header with the field at a dotted path set to a value, or removed if the value is ... (Ellipsis)."""
    body = msgpack.unpackb(pack_call(CALL))
    *parents, last = path.split(".")
    target = body
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    packed: bytes = msgpack.packb(body)
    return packed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("v", 2, "version is 2, wanted 1"),
        ("v", ..., "version is None"),
        ("kind", "exec", "kind is 'exec'"),
        ("attempt", ..., "attempt"),
        ("attempt", "x", "DecodeCall.attempt is 'x', wanted int"),
        ("attempt", True, "DecodeCall.attempt is True, wanted int"),
        ("deadline_s", None, "deadline_s is None, wanted float"),
        ("request", 3, "request is a int, wanted a map"),
        ("request.video", b"x", "video is b'x', wanted str"),
        ("request.sampling", [], "sampling is a list"),
        ("request.sampling.policy", "os.system", "sampling policy is 'os.system', wanted one of"),
        ("request.sampling.frames", 10**9, "frames is 1000000000, wanted 1 to"),
        ("request.sampling.extra", 1, "has no field 'extra'"),
        ("request.crop.scale", [0.5], "scale"),
        ("request.crop.scale", [0.5, "x"], "scale"),
        ("request.width_px", 10**9, "width_px is 1000000000"),
        ("request.hello", 1, "ClipRequest has no field 'hello'"),
    ],
)
def test_what_is_not_known_is_refused_by_name(path: str, value: object, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        unpack_call(_spelled(path, value))


def test_a_refused_call_still_names_its_attempt() -> None:
    assert peek_attempt(_spelled("kind", "exec")) == 7
    assert peek_attempt(b"\xc1") == 0
    assert peek_attempt(_spelled("attempt", "x")) == 0


def test_a_long_header_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadRequest, match=f"wanted at most {MAX_HEADER_BYTES}"):
        unpack_call(bytes(MAX_HEADER_BYTES + 1))


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_a_bad_request(data: bytes) -> None:
    for unpack in (unpack_call, unpack_reply):
        with contextlib.suppress(BadRequest):
            unpack(data)


@given(st.integers(0, 400), st.integers(0, 255))
def test_no_changed_byte_does_anything_but_a_bad_request_or_another_value(at: int, value: int) -> None:
    for packed, unpack in ((pack_call(CALL), unpack_call), (pack_reply(REPLIES[0]), unpack_reply)):
        data = bytearray(packed)
        data[at % len(data)] = value
        with contextlib.suppress(BadRequest):
            unpack(bytes(data))


def test_errors_are_rebuilt_by_code_and_name_the_server() -> None:
    error = ErrorReply(attempt=1, server="s3", code="busy", message="no room").error()
    assert isinstance(error, Busy)
    assert str(error) == "no room (server s3)"
    assert isinstance(ErrorReply(attempt=1, server="s3", code="new-code", message="x").error(), Permanent)
