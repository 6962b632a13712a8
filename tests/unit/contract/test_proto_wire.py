"""Protobuf carries what msgpack carries, the generated classes read it, and no bytes do more than be refused."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box, RandomResizedCrop
from framefeed.errors import WIRE_ERRORS, BadRequest, WrongVersion
from framefeed.grpc_pixels import split_pixels, with_pixels
from framefeed.proto_wire import header_of_call, header_of_no_call, header_of_reply, proto_of_call, proto_of_reply
from framefeed.sampling import AtFrames, AtSeconds
from framefeed.v1 import decode_pb2 as pb
from framefeed.wire import (
    Call,
    CancelCall,
    ClipReply,
    DecodeCall,
    DescribeCall,
    ErrorReply,
    Load,
    Reply,
    ServerReply,
    pack_call,
    pack_reply,
    peek_attempt,
    seal,
    unpack_call,
    unpack_reply,
)
from tests.unit.contract.test_request import REQUEST
from tests.unit.contract.test_wire import CALL, CALLS, CROPS, REPLIES, SAMPLINGS

PIXELS = bytes(range(256)) * 3
CHANGES: list[dict[str, Any]] = [*({"sampling": s} for s in SAMPLINGS), *({"crop": c} for c in CROPS)]
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FLOATS = st.floats(allow_nan=False)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(max_size=30)
NAMES = WORDS.filter(str.isprintable)


def over_protobuf(call: Call) -> Call:
    return unpack_call(header_of_call(proto_of_call(pack_call(call))))


def over_protobuf_and_back(reply: Reply, pixels: bytes | None = None) -> tuple[Reply, bytes]:
    data = with_pixels(proto_of_reply(pack_reply(reply)), None if pixels is None else memoryview(pixels))
    said, view = split_pixels(data)
    return unpack_reply(header_of_reply(said)), bytes(view)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_requests_come_back_as_they_were(change: dict[str, Any]) -> None:
    call = replace(CALL, request=replace(REQUEST, interpolation="bicubic", pixel_format="yuv420p", **change))
    assert over_protobuf(call) == call


@given(U64.filter(bool))
def test_short_calls_come_back_as_they_were(attempt: int) -> None:
    for call in (DescribeCall(attempt=attempt), CancelCall(attempt=attempt)):
        assert over_protobuf(call) == call


@given(
    st.integers(1, 2**64 - 1),
    st.tuples(st.floats(0, 1e5), st.floats(0.01, 1e5)),
    st.sampled_from(["clip", "ein Vidéo/日本.mp4", "../x", "a\nb"]),
    st.tuples(
        st.lists(st.floats(0, 1e6), min_size=1, max_size=40).map(tuple),
        st.tuples(st.floats(0.01, 1), st.floats(0, 1)).map(lambda p: (p[0], max(p))),
    ),
    st.tuples(st.from_regex(r"\A[\w.-]{0,64}\Z", alphabet="aZ0_.-"), st.sampled_from(["train", "eval"]), WORDS),
)
def test_every_value_of_a_call_survives_to_the_last_bit(
    number: int, span: Any, video: str, policies: Any, whose: tuple[str, Any, str]
) -> None:
    (start_s, length_s), (offsets_s, scale) = span, policies
    request = replace(
        REQUEST,
        video=video,
        start_s=start_s,
        end_s=start_s + length_s,
        seed=number,
        sampling=AtSeconds(offsets_s=offsets_s),
        crop=RandomResizedCrop(scale=scale),
    )
    run, work_class, dataset = whose
    call = DecodeCall(
        attempt=number, deadline_s=length_s, request=request, alone=bool(number % 2),
        run=run, work_class=work_class, dataset=dataset,
    )  # fmt: skip
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
LOADS = st.builds(Load, queued=U32, credits=U32, front_s=FINITE, front_busy=FINITE)


@given(INFOS, U64, st.binary(max_size=2000), LOADS)
def test_every_value_of_a_clip_survives_to_the_last_bit(
    info: ClipInfo, attempt: int, pixels: bytes, load: Load
) -> None:
    reply = ClipReply(attempt=attempt, server="é:1", info=info, load=load)
    assert over_protobuf_and_back(reply, pixels) == (reply, pixels)
    assert unpack_reply(pack_reply(reply)) == reply
    data = with_pixels(proto_of_reply(pack_reply(reply)), memoryview(pixels))
    read = pb.Reply.FromString(data)
    assert (read.pixels, list(read.clip.pts_s), read.attempt) == (pixels, list(info.pts_s), attempt)
    said, view = split_pixels(read.SerializeToString())
    assert (unpack_reply(header_of_reply(said)), bytes(view)) == (reply, pixels)


@given(
    st.builds(ErrorReply, attempt=U64, server=NAMES, code=st.sampled_from([*WIRE_ERRORS]), message=NAMES, load=LOADS)
    | st.builds(
        ServerReply, attempt=U64, server=NAMES, fingerprint=NAMES, videos=U64, workers=U32, state=NAMES,
        dataset=NAMES, max_clip_bytes=U64, software=NAMES, load=LOADS,
        siblings=st.lists(NAMES, max_size=3).map(tuple), metrics_port=st.integers(0, 65535),
    )
)  # fmt: skip
def test_every_value_of_a_reply_without_pixels_survives(reply: Reply) -> None:
    assert over_protobuf_and_back(reply) == (reply, b"")
    assert unpack_reply(pack_reply(reply)) == reply


@pytest.mark.parametrize("code", WIRE_ERRORS)
def test_every_error_survives(code: str) -> None:
    reply = ErrorReply(attempt=7, server="a", code=code, message="what, where: seen 1, wanted 2")
    assert over_protobuf_and_back(reply) == (reply, b"")


def test_the_pixels_of_a_reply_are_not_copied() -> None:
    data = with_pixels(proto_of_reply(pack_reply(REPLIES[0])), memoryview(PIXELS))
    assert split_pixels(data)[1].obj is data


def good_call(**changes: Any) -> pb.Call:
    message = pb.Call.FromString(proto_of_call(pack_call(CALL)))
    message.decode.request.MergeFrom(pb.ClipRequest(**changes))
    return message


def refused(message: pb.Call, says: str, kind: type[Exception] = BadRequest) -> None:
    header = header_of_call(message.SerializeToString())
    with pytest.raises(kind, match=says):
        unpack_call(header)
    assert peek_attempt(header) == message.attempt


def test_what_is_left_out_is_refused_not_guessed() -> None:
    for field, says in (
        ("sampling", "missing required field `sampling`"),
        ("crop", "missing required field `crop`"),
        ("pixel_format", r"Invalid enum value '' - .*\.pixel_format"),
        ("interpolation", r"Invalid enum value '' - .*\.interpolation"),
        ("video", "video name has 0 characters"),
        ("width_px", "width_px is 0"),
    ):
        message, request = good_call(), CALL.request
        oneof = {"sampling": "segments", "crop": "random_resized"}
        assert message.decode.request.HasField("segments") == (type(request.sampling).__name__ == "Segments")
        message.decode.request.ClearField(oneof.get(field, field))  # type: ignore[arg-type]
        refused(message, says)
    unbound = good_call()
    unbound.decode.ClearField("request")
    refused(unbound, "missing required field `request`")
    unclassed = good_call()
    unclassed.decode.ClearField("work_class")
    refused(unclassed, r"Invalid enum value '' - .*\.work_class")
    refused(pb.Call(version=2, attempt=9), "missing required field `kind`")
    refused(pb.Call(version=2, describe=pb.Describe()), r"Expected `int` >= 1 - .*\.attempt")
    refused(pb.Call(attempt=9, describe=pb.Describe()), "version is 0, wanted 2")
    refused(pb.Call(version=3, attempt=9, describe=pb.Describe()), "version is 3, wanted 2", WrongVersion)


def test_what_is_not_known_or_out_of_bounds_is_refused_by_name() -> None:
    refused(good_call(pixel_format="rgb48"), "Invalid enum value 'rgb48'")
    refused(good_call(width_px=10**9), "width_px is 1000000000")
    refused(good_call(video="x" * 600), "video name has 600 characters")
    refused(good_call(dense=pb.Dense(frames=10**9, stride=1, short="hold")), "frames is 1000000000")
    refused(good_call(at_frames=pb.AtFrames(offsets_frames=[1, 2])), r"Invalid enum value '' - .*\.short")
    refused(good_call(random_resized=pb.RandomResizedCrop(scale=[0.1])), "of length 2, got 3")
    with pytest.raises(BadRequest, match="2 bytes are no Call"):
        header_of_call(b"\x0a\xff")
    header = header_of_no_call("2 bytes are no Call")
    with pytest.raises(BadRequest, match="2 bytes are no Call"):
        unpack_call(header)


@pytest.mark.parametrize("path", ["", "decode", "decode.request", "decode.request.segments", "decode.request.crop"])
def test_a_field_of_a_call_that_is_not_in_decode_proto_is_refused_at_any_depth(path: str) -> None:
    call = CALL if path.endswith("crop") else replace(CALL, request=replace(REQUEST, sampling=SAMPLINGS[0]))
    message = pb.Call.FromString(proto_of_call(pack_call(call)))
    part: Any = message
    for name in path.split(".") if path else ():
        part = getattr(part, part.WhichOneof(name) if name == "crop" else name)
    part.MergeFromString(b"\xf8\x07\x01")  # field 127
    refused(message, r"unknown field `\(not in decode\.proto\)`")


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_a_reply_may_say_more_than_its_reader_knows(reply: Reply) -> None:
    message = pb.Reply.FromString(proto_of_reply(pack_reply(reply)))
    part = getattr(message, str(message.WhichOneof("outcome")))
    for wider in (message, part, message.load):
        wider.MergeFromString(b"\xf8\x07\x01")
    assert unpack_reply(header_of_reply(message.SerializeToString())) == reply


def test_a_long_list_is_refused_before_anything_is_made_of_it() -> None:
    offsets = AtFrames(offsets_frames=tuple(range(512)), short="hold")
    call = replace(CALL, request=replace(REQUEST, sampling=offsets))
    assert over_protobuf(call) == call
    message = good_call(at_frames=pb.AtFrames(offsets_frames=range(60_000), short="hold"))
    with pytest.raises(BadRequest, match=r"frames is 60000, wanted 1 to 512|header has"):
        unpack_call(header_of_call(message.SerializeToString()))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x22", "ends within a number"),
        (b"\x22\x05ab", "ends within a field"),
        (b"\x22" + b"\xff" * 10 + b"\x01", "more than 64 bits"),
        (b"\x23", "wire type 3"),
        (b"\x08\x01", "Reply says nothing, wanted clip, error or description"),
        (b"\x22\x02\x0a\x05", "are no Reply"),
        (b"\x1a\x02\xff\xfe", "are no Reply"),
        (b"\x7a\x05abc", "ends within a field"),
        (b"\x22\x00", "missing required field `box`"),
    ],
)
def test_a_reply_that_is_none_is_refused(data: bytes, says: str) -> None:
    with pytest.raises((BadRequest, WrongVersion), match=f"{says}|version is 0" if data == b"\x22\x00" else says):
        unpack_reply(header_of_reply(split_pixels(data)[0]))


@pytest.mark.parametrize(
    "header",
    [b"", b"\xc1", seal(b"\xc1"), seal(b""), seal(b"\x90"), seal(b"\x93\x02\x80\x80"), seal(b"\x91" * 5000 + b"\x01")],
    ids=len,
)
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    for spell in (proto_of_call, proto_of_reply):
        with pytest.raises(BadRequest, match=r"CRC-32|does not fit decode\.proto"):
            spell(header)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_a_bad_request(data: bytes) -> None:
    for read in (header_of_call, header_of_reply, split_pixels, lambda data: proto_of_call(seal(data))):
        with contextlib.suppress(BadRequest):
            read(data)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_changed_byte_does_anything_but_a_bad_request_or_another_value(at: int, value: int) -> None:
    def read_call(data: bytes) -> object:
        return unpack_call(header_of_call(data))

    def read_reply(data: bytes) -> object:
        return unpack_reply(header_of_reply(split_pixels(data)[0]))

    call = proto_of_call(pack_call(CALL))
    reply = with_pixels(proto_of_reply(pack_reply(REPLIES[1])), memoryview(PIXELS))
    for packed, read in ((call, read_call), (reply, read_reply)):
        data = bytearray(packed)
        data[at % len(data)] = value
        with contextlib.suppress(BadRequest, WrongVersion):
            read(bytes(data))


def test_headers_are_those_of_msgpack() -> None:
    """Value for value but for the order of keys, so that nothing behind the transport can tell how a call came."""

    def said(header: bytes) -> Any:
        return msgspec.msgpack.decode(header[:-4])

    for call in CALLS:
        assert said(header_of_call(proto_of_call(pack_call(call)))) == said(pack_call(call))
    padded = REPLIES[1]
    assert said(header_of_reply(proto_of_reply(pack_reply(padded)))) == said(pack_reply(padded))
