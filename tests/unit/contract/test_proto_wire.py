"""Protobuf carries what msgpack carries, the generated classes read it, and no bytes do more than be refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box, RandomResizedCrop
from framefeed.errors import WIRE_ERRORS, BadRequest
from framefeed.proto_wire import (
    header_of_call,
    header_of_reply,
    header_of_server,
    proto_of_call,
    proto_of_reply,
    proto_of_server,
)
from framefeed.sampling import AtFrames, AtSeconds
from framefeed.v1 import decode_pb2 as pb
from framefeed.wire import (
    ClipReply,
    DecodeCall,
    ErrorReply,
    ServerReply,
    pack_call,
    pack_reply,
    unpack_call,
    unpack_reply,
)
from tests.unit.contract.test_request import REQUEST
from tests.unit.contract.test_wire import CALL, CROPS, REPLIES, SAMPLINGS

PIXELS = bytes(range(256)) * 3
CHANGES: list[dict[str, Any]] = [*({"sampling": s} for s in SAMPLINGS), *({"crop": c} for c in CROPS)]


def over_protobuf(call: DecodeCall) -> Any:
    return unpack_call(header_of_call(proto_of_call(pack_call(call))))


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_calls_come_back_as_they_were(change: dict[str, Any]) -> None:
    call = replace(CALL, request=replace(REQUEST, interpolation="bicubic", pixel_format="yuv420p", **change))
    assert over_protobuf(call) == call


@given(
    st.integers(0, 2**64 - 1),
    st.tuples(st.floats(0, 1e5), st.floats(0.01, 1e5)),
    st.sampled_from(["clip", "ein Vidéo/日本.mp4", "../x", "a\nb"]),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=40),
    st.tuples(st.floats(0.01, 1), st.floats(0, 1)).map(lambda p: (p[0], max(p))),
)
def test_every_value_of_a_call_survives_to_the_last_bit(
    number: int, span: Any, video: str, offsets_s: list[float], scale: tuple[float, float]
) -> None:
    start_s, length_s = span
    request = replace(
        REQUEST,
        video=video,
        start_s=start_s,
        end_s=start_s + length_s,
        seed=number,
        sampling=AtSeconds(offsets_s=tuple(offsets_s)),
        crop=RandomResizedCrop(scale=scale),
    )
    call = DecodeCall(attempt=number, deadline_s=length_s, request=request, alone=bool(number % 2))
    assert over_protobuf(call) == call == unpack_call(pack_call(call))


INFOS = st.builds(
    lambda times, box, matrix, flags, placed, numbers, stage_s: ClipInfo(
        pts_s=tuple(times),
        box=box,
        flipped=flags[0],
        colour=Colour(matrix=matrix, full_range=flags[1]),
        read_bytes=numbers[0],
        fed_packets=numbers[1],
        stage_s=stage_s,
        placed=placed,
        padding=tuple(t > 10 for t in times) if flags[2] else (),
    ),
    st.lists(st.floats(0, 1e6), max_size=20),
    st.builds(Box, x_px=st.integers(0, 9999), y_px=st.just(0), width_px=st.integers(2, 9999), height_px=st.just(2)),
    st.sampled_from(["bt601", "bt709", "bt2020"]),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.none() | st.builds(Box, x_px=st.just(0), y_px=st.just(0), width_px=st.integers(2, 99), height_px=st.just(2)),
    st.tuples(st.integers(0, 2**63), st.integers(0, 2**31)),
    st.dictionaries(st.sampled_from(["queue", "read", "decode", "scale"]), st.floats(0, 100)),
)


@given(INFOS, st.integers(0, 2**64 - 1), st.binary(max_size=2000))
def test_every_value_of_a_clip_survives_to_the_last_bit(info: ClipInfo, attempt: int, pixels: bytes) -> None:
    reply = ClipReply(attempt=attempt, server="é:1", queued=7, info=info)
    data = proto_of_reply(pack_reply(reply), memoryview(pixels))
    header, view = header_of_reply(data)
    assert unpack_reply(header) == reply
    assert bytes(view) == pixels
    read = pb.DecodeReply.FromString(data)
    assert (read.clip.pixels, list(read.clip.pts_s), read.attempt) == (pixels, list(info.pts_s), attempt)
    header, view = header_of_reply(read.SerializeToString())
    assert (unpack_reply(header), bytes(view)) == (reply, pixels)


@pytest.mark.parametrize("code", WIRE_ERRORS)
def test_every_error_survives(code: str) -> None:
    reply = ErrorReply(attempt=7, server="a", code=code, message="what, where: seen 1, wanted 2")
    header, pixels = header_of_reply(proto_of_reply(pack_reply(reply), None))
    assert unpack_reply(header) == reply
    assert not pixels


def test_a_server_s_description_survives() -> None:
    (reply,) = (reply for reply in REPLIES if isinstance(reply, ServerReply))
    assert unpack_reply(header_of_server(proto_of_server(pack_reply(reply)), attempt=7)) == reply
    notice, pixels = header_of_reply(proto_of_reply(pack_reply(reply), None))
    assert (unpack_reply(notice), bytes(pixels)) == (reply, b"")


def test_the_pixels_of_a_reply_are_not_copied() -> None:
    data = proto_of_reply(pack_reply(REPLIES[0]), memoryview(PIXELS))
    assert header_of_reply(data)[1].obj is data


def good_request(**changes: Any) -> pb.DecodeRequest:
    message = pb.DecodeRequest.FromString(proto_of_call(pack_call(CALL)))
    message.request.MergeFrom(pb.ClipRequest(**changes))
    return message


def refused(message: pb.DecodeRequest, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        unpack_call(header_of_call(message.SerializeToString()))


def test_what_is_left_out_is_refused_not_guessed() -> None:
    for field, says in (("sampling", "sampling"), ("crop", "crop"), ("pixel_format", "pixel_format is 'unspecified'")):
        message = good_request()
        oneof = {"sampling": message.request.WhichOneof("sampling"), "crop": message.request.WhichOneof("crop")}
        message.request.ClearField(oneof.get(field, field))
        refused(message, says)
    refused(pb.DecodeRequest(), "sampling is a NoneType")


def test_what_is_not_known_or_out_of_bounds_is_refused_by_name() -> None:
    refused(good_request(pixel_format=77), "pixel_format is '77'")
    refused(good_request(width_px=10**9), "width_px is 1000000000")
    refused(good_request(video="x" * 600), "video name has 600 characters")
    refused(good_request(dense=pb.Dense(frames=10**9, stride=1, short=pb.SHORT_HOLD)), "frames is 1000000000")
    refused(good_request(at_frames=pb.AtFrames(offsets_frames=[1, 2])), "short is 'unspecified'")
    with pytest.raises(BadRequest, match="are no DecodeRequest"):
        header_of_call(b"\x0a\xff")
    unknown = good_request().SerializeToString() + b"\xf8\x07\x01"  # field 127
    with pytest.raises(BadRequest, match=r"DecodeRequest has fields that are not in decode\.proto"):
        header_of_call(unknown)


def test_a_long_list_is_refused_before_anything_is_made_of_it() -> None:
    offsets = AtFrames(offsets_frames=tuple(range(512)), short="hold")
    call = replace(CALL, request=replace(REQUEST, sampling=offsets))
    assert over_protobuf(call) == call
    message = good_request(at_frames=pb.AtFrames(offsets_frames=range(60_000), short=pb.SHORT_HOLD))
    refused(message, "frames is 60000, wanted 1 to 512|header has")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x22", "ends within a number"),
        (b"\x22\x05ab", "ends within a field"),
        (b"\x22" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (b"\x23", "wire type 3"),
        (b"\x08\x01", "neither clip nor error nor notice"),
        (b"\x22\x02\x0a\x05", "ends within a field"),
        (b"\x12\x02\xff\xfe", "are no DecodeReply"),
    ],
)
def test_a_reply_that_is_none_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        header_of_reply(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_a_bad_request(data: bytes) -> None:
    for read in (header_of_call, header_of_reply, lambda data: header_of_server(data, attempt=0)):
        with contextlib.suppress(BadRequest):
            read(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_changed_byte_does_anything_but_a_bad_request_or_another_value(at: int, value: int) -> None:
    def read_call(data: bytes) -> object:
        return unpack_call(header_of_call(data))

    def read_reply(data: bytes) -> object:
        return unpack_reply(header_of_reply(data)[0])

    call = proto_of_call(pack_call(CALL))
    reply = proto_of_reply(pack_reply(REPLIES[1]), memoryview(PIXELS))
    for packed, read in ((call, read_call), (reply, read_reply)):
        data = bytearray(packed)
        data[at % len(data)] = value
        with contextlib.suppress(BadRequest):
            read(bytes(data))


def test_headers_are_those_of_msgpack() -> None:
    """Byte for byte but for the order of keys, so that nothing behind the transport can tell how a call came."""

    def fields(header: bytes) -> Any:
        return msgpack.unpackb(header[:-4])

    assert fields(header_of_call(proto_of_call(pack_call(CALL)))) == fields(pack_call(CALL))
    for reply in REPLIES[:2]:
        data = proto_of_reply(pack_reply(reply), memoryview(PIXELS))
        assert fields(header_of_reply(data)[0]) == fields(pack_reply(reply))
