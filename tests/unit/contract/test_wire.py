"""The wire says what was meant, and refuses what it does not know."""

import contextlib
import json
from dataclasses import replace
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from framefeed.errors import BadRequest, Busy, Permanent
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
from framefeed.wire import (
    CROP_POLICIES,
    MAX_HEADER_BYTES,
    SAMPLING_POLICIES,
    ClipReply,
    DecodeCall,
    DescribeCall,
    ErrorReply,
    Reply,
    ServerReply,
    map_of_request,
    pack_call,
    pack_reply,
    peek_attempt,
    request_from_map,
    sealed,
    unpack_call,
    unpack_reply,
)
from tests.unit.contract.test_request import REQUEST

CALL = DecodeCall(attempt=7, deadline_s=2.5, request=REQUEST)
INFO = ClipInfo(
    pts_s=(1.0, 1.25), box=Box(x_px=2, y_px=4, width_px=100, height_px=50), flipped=True,
    colour=Colour(matrix="bt709", full_range=True), read_bytes=1000, fed_packets=9, stage_s={"read": 0.5},
)  # fmt: skip
PADDED = replace(INFO, placed=Box(x_px=0, y_px=2, width_px=8, height_px=4), padding=(False, True))
REPLIES: list[Reply] = [
    ClipReply(attempt=7, server="a", queued=3, info=INFO),
    ClipReply(attempt=7, server="a", queued=3, info=PADDED),
    ErrorReply(attempt=7, server="a", code="busy", message="no room"),
    ServerReply(attempt=7, server="a", fingerprint="f", videos=3, workers=2, state="ready"),
]


SAMPLINGS = [
    Segments(frames=4, jitter=True),
    Linspace(frames=3),
    Dense(frames=16, stride=4, jitter=False, short="loop"),
    DenseView(frames=16, stride=4, view=4, views=5, short="pad"),
    FrameWindow(frames=4, window_frames=64),
    Resampled(frames=8, fps=7.5, short="refuse"),
    AtSeconds(offsets_s=(0.0, 1.5), short="hold"),
    AtFrames(offsets_frames=(4, 2, 2)),
    PublishedRule(rule="tsn_segments", frames=8, view=1, views=2),
]
CROPS = [
    RandomResizedCrop(scale=(0.2, 0.9)),
    ResizedCentreCrop(ratio=1.5),
    MultiScaleCrop(shares=(1.0, 0.5), snap_px=0),
    RandomCrop(width_px=100, height_px=80),
    CentreCrop(width_px=100, height_px=80),
    ViewCrop(view=2, views=3),
    WholeFrame(),
    Letterbox(centred=False),
    ExplicitBox(box=Box(x_px=1, y_px=2, width_px=3, height_px=4)),
]


def test_every_policy_is_tried() -> None:
    assert {type(policy) for policy in SAMPLINGS} == set(SAMPLING_POLICIES.values()) == set(get_args(Sampling))
    assert {type(policy) for policy in CROPS} == set(CROP_POLICIES.values()) == set(get_args(Crop))


@pytest.mark.parametrize("change", [*({"sampling": s} for s in SAMPLINGS), *({"crop": c} for c in CROPS)], ids=str)
def test_calls_come_back_as_they_were(change: dict[str, Any]) -> None:
    call = replace(CALL, request=replace(REQUEST, interpolation="bicubic", **change))
    assert unpack_call(pack_call(call)) == call


def test_a_request_is_spelled_in_json_too() -> None:
    assert request_from_map(json.loads(json.dumps(map_of_request(REQUEST)))) == REQUEST


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"policy": "at_seconds", "offsets_s": [0, "x"]}, "AtSeconds.offsets_s is .*, wanted tuple"),
        ({"policy": "at_seconds", "offsets_s": 3}, "AtSeconds.offsets_s is 3, wanted tuple"),
        ({"policy": "at_frames", "offsets_frames": [0.5]}, "AtFrames.offsets_frames is .*, wanted tuple"),
        ({"policy": "at_frames", "offsets_frames": [True]}, "AtFrames.offsets_frames is .*, wanted tuple"),
        ({"policy": "dense", "frames": 4, "stride": 1, "short": []}, r"short is \(\), wanted one of hold"),
        ({"policy": "dense", "frames": 4}, "stride"),
        ({"policy": "published", "frames": 4, "rule": "lavila"}, "rule is 'lavila', wanted one of"),
        ({"policy": "published", "frames": 4, "rule": 4}, "PublishedRule.rule is 4, wanted str"),
    ],
)
def test_ill_spelled_sampling_is_refused_by_name(sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        unpack_call(_spelled("request.sampling", sampling))


def test_describe_comes_back_as_it_was() -> None:
    assert unpack_call(pack_call(DescribeCall(attempt=2**63))) == DescribeCall(attempt=2**63)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_replies_come_back_as_they_were(reply: Any) -> None:
    assert unpack_reply(pack_reply(reply)) == reply


def _spelled(path: str, value: object) -> bytes:
    """CALL's header with the field at a dotted path set to a value, or removed if the value is ... (Ellipsis)."""
    body = msgpack.unpackb(pack_call(CALL)[:-4])
    *parents, last = path.split(".")
    target = body
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return sealed(msgpack.packb(body))


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
        ("request.sampling.policy", ["dense"], r"sampling policy is \['dense'\], wanted one of"),
        ("request.sampling.frames", 10**9, "frames is 1000000000, wanted 1 to"),
        ("request.sampling.extra", 1, "has no field 'extra'"),
        ("request.crop.scale", [0.5], "scale"),
        ("request.crop.scale", [0.5, "x"], "scale"),
        ("request.width_px", 10**9, "width_px is 1000000000"),
        ("request.hello", 1, "ClipRequest has no field 'hello'"),
        ("request.interpolation", "lanczos", "interpolation is 'lanczos', wanted 'bilinear' or 'bicubic'"),
        ("request.crop", {"policy": "view", "view": 0.5}, "ViewCrop.view is 0.5, wanted int"),
        ("request.crop", {"policy": "letterbox", "centred": 1}, "Letterbox.centred is 1, wanted bool"),
        ("request.crop", {"policy": "mosaic"}, "crop policy is 'mosaic', wanted one of"),
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


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("padding", [0, 1], "ClipInfo.padding is .*, wanted tuple"),
        ("padding", [True], "1 padding flags for 2 frame times"),
        ("placed", 7, "placed is a int, wanted a map"),
    ],
)
def test_an_ill_spelled_reply_is_refused_by_name(field: str, value: object, message: str) -> None:
    body = msgpack.unpackb(pack_reply(REPLIES[1])[:-4])
    body["info"][field] = value
    with pytest.raises(BadRequest, match=message):
        unpack_reply(sealed(msgpack.packb(body)))


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_a_bad_request(data: bytes) -> None:
    for unpack in (unpack_call, unpack_reply):
        for header in (data, sealed(data)):
            with contextlib.suppress(BadRequest):
                unpack(header)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_changed_byte_is_a_bad_request_and_its_attempt_is_not_believed(at: int, change: int) -> None:
    for packed, unpack in ((pack_call(CALL), unpack_call), (pack_reply(REPLIES[0]), unpack_reply)):
        data = bytearray(packed)
        data[at % len(data)] ^= change
        with pytest.raises(BadRequest, match="do not end with their CRC-32"):
            unpack(bytes(data))
        assert peek_attempt(data) == 0


@given(st.integers(0, 400), st.integers(0, 255))
def test_no_byte_of_a_speaker_does_anything_but_a_bad_request_or_another_value(at: int, value: int) -> None:
    for packed, unpack in ((pack_call(CALL)[:-4], unpack_call), (pack_reply(REPLIES[0])[:-4], unpack_reply)):
        data = bytearray(packed)
        data[at % len(data)] = value
        with contextlib.suppress(BadRequest):
            unpack(sealed(bytes(data)))


def test_errors_are_rebuilt_by_code_and_name_the_server() -> None:
    error = ErrorReply(attempt=1, server="s3", code="busy", message="no room").error()
    assert isinstance(error, Busy)
    assert str(error) == "no room (server s3)"
    assert isinstance(ErrorReply(attempt=1, server="s3", code="new-code", message="x").error(), Permanent)
