"""The wire says what was meant, and refuses what it does not know."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.msgpack import decode, encode
from msgspec.structs import replace

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
from framefeed.errors import BadRequest, Busy, Permanent, WrongVersion
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
    MAX_HEADER_BYTES,
    WIRE_VERSION,
    Call,
    CancelCall,
    ClipReply,
    DecodeCall,
    DescribeCall,
    ErrorReply,
    Load,
    Reply,
    ServerReply,
    add_load,
    map_of_request,
    pack_call,
    pack_reply,
    pack_unsealed,
    peek,
    peek_attempt,
    request_from_map,
    seal,
    unpack_call,
    unpack_reply,
)
from tests.unit.contract.test_request import REQUEST

CALL = DecodeCall(attempt=7, deadline_s=2.5, request=REQUEST, run="mae-1.b_2", work_class="eval", dataset="d")
CALLS: list[Call] = [CALL, DescribeCall(attempt=7), CancelCall(attempt=7)]
LOAD = Load(queued=3, credits=8, front_s=0.25, front_busy=0.5)
INFO = ClipInfo(
    pts_s=(1.0, 1.25), box=Box(x_px=2, y_px=4, width_px=100, height_px=50), flipped=True,
    colour=Colour(matrix="bt709", full_range=True), read_bytes=1000, fed_packets=9, stage_s={"read": 0.5},
)  # fmt: skip
PADDED = replace(INFO, placed=Box(x_px=0, y_px=2, width_px=8, height_px=4), padding=(False, True))
REPLIES: list[Reply] = [
    ClipReply(attempt=7, server="a", info=INFO, load=LOAD),
    ClipReply(attempt=7, server="a", info=PADDED),
    ErrorReply(attempt=7, server="a", code="busy", message="no room", load=LOAD),
    ServerReply(attempt=7, server="a", fingerprint="f", videos=3, workers=2, state="ready"),
    ServerReply(
        attempt=0, server="a", fingerprint="f", videos=3, workers=2, state="draining",
        dataset="d", max_clip_bytes=1 << 40, software="0.1.0", siblings=("tcp://*:5556",), metrics_port=9555,
        load=LOAD,
    ),
]  # fmt: skip


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
    assert {type(policy) for policy in SAMPLINGS} == set(get_args(Sampling))
    assert {type(policy) for policy in CROPS} == set(get_args(Crop))


@pytest.mark.parametrize("change", [*({"sampling": s} for s in SAMPLINGS), *({"crop": c} for c in CROPS)], ids=str)
def test_calls_come_back_as_they_were(change: dict[str, Any]) -> None:
    call = replace(CALL, request=replace(REQUEST, interpolation="bicubic", **change))
    assert unpack_call(pack_call(call)) == call


def test_a_request_is_spelled_in_json_too() -> None:
    assert request_from_map(json.loads(json.dumps(map_of_request(REQUEST)))) == REQUEST


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"policy": "at_seconds", "offsets_s": [0, "x"]}, r"Expected `float`, got `str` - at `\$.*\.offsets_s\[1\]`"),
        ({"policy": "at_seconds", "offsets_s": 3}, r"Expected `array`, got `int` - at `\$.*\.offsets_s`"),
        ({"policy": "at_frames", "offsets_frames": [0.5]}, r"Expected `int`, got `float` - .*\.offsets_frames"),
        ({"policy": "at_frames", "offsets_frames": [1.0]}, r"Expected `int`, got `float` - .*\.offsets_frames"),
        ({"policy": "at_frames", "offsets_frames": [True]}, r"Expected `int`, got `bool` - .*\.offsets_frames"),
        ({"policy": "dense", "frames": 4, "stride": 1, "short": []}, r"Expected `str`, got `array` - .*\.short"),
        ({"policy": "dense", "frames": 4, "stride": 1, "short": "cut"}, r"Invalid enum value 'cut' - .*\.short"),
        ({"policy": "dense", "frames": 4}, "missing required field `stride`"),
        ({"policy": "published", "frames": 4, "rule": "lavila"}, "rule is 'lavila', wanted one of"),
        ({"policy": "published", "frames": 4, "rule": 4}, r"Expected `str`, got `int` - .*\.rule"),
    ],
)
def test_ill_spelled_sampling_is_refused_by_name(sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        unpack_call(_spelled("request.sampling", sampling))
    spelled = map_of_request(REQUEST) | {"sampling": sampling}
    with pytest.raises(BadRequest, match=message.replace("array", "(array|tuple)").replace(" - ", " .*")):
        request_from_map(json.loads(json.dumps(spelled)))


@pytest.mark.parametrize("kind", [DescribeCall, CancelCall])
@pytest.mark.parametrize("attempt", [1, 2**63, 2**64 - 1])
def test_short_calls_come_back_as_they_were(kind: type[Call], attempt: int) -> None:
    call = kind(attempt=attempt)  # type: ignore[call-arg]
    assert unpack_call(pack_call(call)) == call


@pytest.mark.parametrize("number", [0, 2**63, 2**64 - 1])
def test_numbers_of_64_bits_come_back_as_they_were(number: int) -> None:
    call = replace(CALL, attempt=number, request=replace(REQUEST, seed=number))
    assert unpack_call(pack_call(call)) == call


def test_whole_numbers_do_for_others() -> None:
    call = unpack_call(_spelled("deadline_s", 3))
    assert isinstance(call, DecodeCall)
    assert (call.deadline_s, type(call.deadline_s)) == (3.0, float)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_replies_come_back_as_they_were(reply: Any) -> None:
    assert unpack_reply(pack_reply(reply)) == reply


def test_a_worker_packs_a_reply_and_its_front_adds_the_load() -> None:
    for reply in REPLIES:
        assert pack_reply(reply) == add_load(pack_unsealed(reply), reply.load)
        assert unpack_reply(add_load(pack_unsealed(reply), LOAD)) == replace(reply, load=LOAD)


def _message(header: bytes) -> list[Any]:
    """Version, message and, of a reply, load."""
    parts: list[Any] = decode(header[:-4])
    return parts


def _set(target: Any, path: str, value: object) -> None:
    """Set the field at a dotted path, or remove it if the value is ... (Ellipsis)."""
    *parents, last = path.split(".")
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[last]
    else:
        target[last] = value


def _spelled(path: str, value: object) -> bytes:
    """CALL's header with one field changed."""
    version, message = _message(pack_call(CALL))
    _set(message, path, value)
    return seal(encode((version, message)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("kind", "exec", r"Invalid value 'exec' - at `\$.*\.kind`"),
        ("kind", ..., "missing required field `kind`"),
        ("kind", 1, r"Expected `str`, got `int` - at `\$.*\.kind`"),
        ("attempt", ..., "missing required field `attempt`"),
        ("attempt", "x", r"Expected `int`, got `str` - at `\$.*\.attempt`"),
        ("attempt", True, r"Expected `int`, got `bool` - at `\$.*\.attempt`"),
        ("attempt", 7.0, r"Expected `int`, got `float` - at `\$.*\.attempt`"),
        ("attempt", -1, r"Expected `int` >= 0 - at `\$.*\.attempt`"),
        ("attempt", -(2**63), r"Expected `int` >= 0 - at `\$.*\.attempt`"),
        ("deadline_s", None, r"Expected `float`, got `None` - at `\$.*\.deadline_s`"),
        ("deadline_s", True, r"Expected `float`, got `bool` - at `\$.*\.deadline_s`"),
        ("deadline_s", "1", r"Expected `float`, got `str` - at `\$.*\.deadline_s`"),
        ("alone", 1, r"Expected `bool`, got `int` - at `\$.*\.alone`"),
        ("run", "a b", "run is 'a b', wanted at most 64 of the characters"),
        ("run", "a\n", "run is 'a.+n', wanted at most 64 of the characters"),
        ("run", "x" * 65, "run is 'x+', wanted at most 64 of the characters"),
        ("work_class", "test", r"Invalid enum value 'test' - at `\$.*\.work_class`"),
        ("hello", 1, "unknown field `hello`"),
        ("request", 3, r"Expected `object`, got `int` - at `\$.*\.request`"),
        ("request.video", b"x", r"Expected `str`, got `bytes` - at `\$.*\.video`"),
        ("request.seed", -1, "seed is -1, wanted 0 to"),
        ("request.seed", "5", r"Expected `int`, got `str` - at `\$.*\.seed`"),
        ("request.sampling", [], r"Expected `object`, got `array` - at `\$.*\.sampling`"),
        ("request.sampling.policy", "os.system", r"Invalid value 'os.system' - at `\$.*\.sampling\.policy`"),
        ("request.sampling.policy", ["dense"], r"Expected `str`, got `array` - at `\$.*\.sampling\.policy`"),
        ("request.sampling.frames", 10**9, "frames is 1000000000, wanted 1 to"),
        ("request.sampling.extra", 1, r"unknown field `extra` - at `\$.*\.sampling`"),
        ("request.crop.scale", [0.5], r"Expected `array` of length 2, got 1 - at `\$.*\.scale`"),
        ("request.crop.scale", [0.5, 0.7, 0.9], r"Expected `array` of length 2, got 3 - at `\$.*\.scale`"),
        ("request.crop.scale", [0.5, "x"], r"Expected `float`, got `str` - at `\$.*\.scale\[1\]`"),
        ("request.width_px", 10**9, "width_px is 1000000000"),
        ("request.hello", 1, r"unknown field `hello` - at `\$.*\.request`"),
        ("request.interpolation", "lanczos", r"Invalid enum value 'lanczos' - at `\$.*\.interpolation`"),
        ("request.crop", {"policy": "view", "view": 0.5}, r"Expected `int`, got `float` - at `\$.*\.crop\.view`"),
        ("request.crop", {"policy": "letterbox", "centred": 1}, r"Expected `bool`, got `int` - .*\.crop\.centred"),
        ("request.crop", {"policy": "mosaic"}, r"Invalid value 'mosaic' - at `\$.*\.crop\.policy`"),
        (
            "request.crop",
            {"policy": "explicit", "box": {"x_px": 0, "y_px": 0, "width_px": 2, "height_px": 2, "z_px": 0}},
            r"unknown field `z_px` - at `\$.*\.crop\.box`",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(path: str, value: object, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        unpack_call(_spelled(path, value))


def test_a_description_that_is_asked_for_is_told_from_a_notice() -> None:
    with pytest.raises(BadRequest, match=r"Expected `int` >= 1 - at `\$.*\.attempt`"):
        unpack_call(pack_call(DescribeCall(attempt=0)))


def test_more_than_a_call_is_refused() -> None:
    with pytest.raises(BadRequest, match="Expected `array` of at most length 2, got 3"):
        unpack_call(seal(encode([*_message(pack_call(CALL)), 1])))


def test_what_is_refused_is_said_in_one_short_printable_line() -> None:
    badly_named = map_of_request(REQUEST) | {"video": "a\nb", "end_s": 0.0}
    for path, value in (
        ("x" * 50_000, 1),
        ("x\ny", 1),
        ("request.sampling", {"policy": "\x1b[2J" + "y" * 50_000}),
        ("request.sampling", {"policy": "published", "frames": 4, "rule": "\n" * 20_000}),
        ("request.interpolation", "\x00\r" * 9_000),
        ("request", badly_named),
        ("request.width_px", 3),
    ):
        with pytest.raises(BadRequest) as refused:
            unpack_call(_spelled(path, value))
        assert len(str(refused.value)) <= 300
        assert str(refused.value).isprintable()


def test_a_refused_call_still_names_its_attempt() -> None:
    assert peek_attempt(_spelled("kind", "exec")) == 7
    assert peek_attempt(_spelled("request", [[]])) == 7
    assert peek_attempt(b"\xc1") == 0
    assert peek_attempt(_spelled("attempt", "x")) == 0
    assert peek_attempt(_spelled("attempt", True)) == 0
    assert peek_attempt(_spelled("attempt", -7)) == 0
    assert peek_attempt(_spelled("attempt", ...)) == 0


def test_calls_and_replies_say_kind_and_attempt_at_a_look() -> None:
    assert [peek(pack_call(call)) for call in CALLS] == [("decode", 7), ("describe", 7), ("cancel", 7)]
    kinds = [("clip", 7), ("clip", 7), ("error", 7), ("server", 7), ("server", 0)]
    assert [peek(pack_reply(reply)) for reply in REPLIES] == kinds


# How version 1 spelled the calls and replies of this file.
VERSION_1 = [
    {"v": 1, "kind": "decode", "attempt": 7, "deadline_s": 2.5, "request": {"video": "clip"}},
    {"v": 1, "kind": "describe", "attempt": 7},
    {"v": 1, "kind": "clip", "attempt": 7, "server": "a", "queued": 3, "info": {"pts_s": [1.0, 1.25]}},
    {"v": 1, "kind": "error", "attempt": 7, "server": "a", "code": "busy", "message": "no room"},
]


@pytest.mark.parametrize("body", VERSION_1, ids=lambda body: str(body["kind"]))
def test_messages_of_version_1_are_of_another_version_on_both_sides(body: dict[str, Any]) -> None:
    header = seal(encode(body))
    for unpack in (unpack_call, unpack_reply):
        with pytest.raises(WrongVersion, match=f"^wire: version is 1, wanted {WIRE_VERSION}$"):
            unpack(header)
    assert peek(header) == (body["kind"], 7)


@pytest.mark.parametrize("version", [1, 3, 2**64 - 1])
@pytest.mark.parametrize("more", [{}, {"hello": [1]}, {"kind": "steal"}], ids=str)
def test_messages_of_later_versions_are_told_by_it_whatever_else_they_say(version: int, more: dict[str, Any]) -> None:
    sent: list[tuple[Callable[[bytes], object], bytes]] = [(unpack_call, pack_call(call)) for call in CALLS]
    sent += [(unpack_reply, pack_reply(reply)) for reply in REPLIES]
    for unpack, header in sent:
        _, message, *load = _message(header)
        changed = seal(encode([version, {**message, **more}, *load, "and more"]))
        with pytest.raises(WrongVersion, match=f"version is {version}, wanted {WIRE_VERSION}"):
            unpack(changed)
        assert peek_attempt(changed) == message["attempt"]


@pytest.mark.parametrize("version", [None, True, 2.0, "2", 0, -1, -(2**63), [2]], ids=str)
def test_what_is_no_version_is_refused(version: object) -> None:
    for unpack, header in ((unpack_call, pack_call(CALL)), (unpack_reply, pack_reply(REPLIES[0]))):
        with pytest.raises(BadRequest, match=r"\$\[0\]|version is"):
            unpack(seal(encode([version, *_message(header)[1:]])))


def _holders(value: Any) -> Iterator[dict[str, Any]]:
    """All maps in a message."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _holders(part)


def _in_each_field(header: bytes, put: Any) -> Iterator[bytes]:
    """The message with each field in turn changed, and with one more in each map."""
    fields = [(i, name) for i, map in enumerate(_holders(_message(header))) for name in (*map, "more")]
    for i, name in fields:
        message = _message(header)
        list(_holders(message))[i][name] = put
        yield seal(encode(message))
    for at in range(len(_message(header))):
        message = _message(header)
        message[at] = put
        yield seal(encode(message))


def _nested(depth: int) -> Raw:
    """A list in a list in a list: msgspec's own encoder has a limit, so the bytes are written out."""
    return Raw(b"\x91" * depth + b"\xc0")


@pytest.mark.parametrize("depth", [*range(1, 20), 100, 500, 900, 1000, 1022, 1023, 30_000])
def test_lists_of_any_depth_in_any_field_of_a_call_are_a_bad_request(depth: int) -> None:
    for call in CALLS:
        for header in _in_each_field(pack_call(call), _nested(depth)):
            with pytest.raises(BadRequest):
                unpack_call(header)


@pytest.mark.parametrize("depth", [*range(1, 20), 100, 500, 900, 1000, 1022, 1023, 30_000])
def test_lists_of_any_depth_in_any_field_of_a_reply_are_a_bad_request_or_more_than_its_reader_knows(depth: int) -> None:
    for reply in REPLIES:
        for header in _in_each_field(pack_reply(reply), _nested(depth)):
            try:
                read = unpack_reply(header)
            except BadRequest:
                continue
            assert depth < 1000, "the reader goes as deep as it is told"
            assert read == reply, "only a field that is not known may hold it"


def test_a_megabyte_of_lists_is_refused_by_its_size() -> None:
    for unpack in (unpack_call, unpack_reply):
        with pytest.raises(BadRequest, match=f"header has 1000005 bytes, wanted at most {MAX_HEADER_BYTES}"):
            unpack(seal(b"\x91" * 1_000_000 + b"\xc0"))
    assert peek_attempt(seal(b"\x91" * 1_000_000 + b"\xc0")) == 0


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_a_reply_may_say_more_than_its_reader_knows(reply: Reply) -> None:
    version, message, load = _message(pack_reply(reply))
    for extra in ({"more": 1}, {"more": {"a": [1, None]}}):
        message.update(extra)
        load.update(extra)
        if "info" in message:
            message["info"].update(extra)
            message["info"]["colour"].update(extra)
        assert unpack_reply(seal(encode((version, message, load, "and more")))) == reply
    assert unpack_reply(seal(encode((version, message)))) == replace(reply, load=Load()), "of a server without load"


def test_a_long_header_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadRequest, match=f"wanted at most {MAX_HEADER_BYTES}"):
        unpack_call(bytes(MAX_HEADER_BYTES + 1))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("info.padding", [0, 1], r"Expected `bool`, got `int` - at `\$.*\.padding\[0\]`"),
        ("info.padding", [True], "1 padding flags for 2 frame times"),
        ("info.placed", 7, r"Expected `object \| null`, got `int` - at `\$.*\.placed`"),
        ("info.colour", ..., "missing required field `colour`"),
        ("info.colour.matrix", "bt2100", "Invalid enum value 'bt2100'"),
        ("info.stage_s", {"dream": 1.0}, "stages .'dream'. are not among"),
        ("info.stage_s", {"read": "1"}, "Expected `float`, got `str`"),
        ("info.box.width_px", 1, "smaller than 2x2 pixels"),
        ("attempt", -1, "Expected `int` >= 0"),
        ("server", ..., "missing required field `server`"),
        ("kind", "decode", "Invalid value 'decode'"),
    ],
)
def test_an_ill_spelled_reply_is_refused_by_name(field: str, value: object, message: str) -> None:
    version, body, load = _message(pack_reply(REPLIES[1]))
    _set(body, field, value)
    with pytest.raises(BadRequest, match=message):
        unpack_reply(seal(encode((version, body, load))))


def test_an_ill_spelled_load_is_refused_by_name() -> None:
    version, body, _ = _message(pack_reply(REPLIES[0]))
    loads = (({"queued": -1}, "Expected `int` >= 0"), ({"front_s": "1"}, "Expected `float`"), (3, "Expected `object`"))
    for load, message in loads:
        with pytest.raises(BadRequest, match=message):
            unpack_reply(seal(encode((version, body, load))))


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_a_bad_request(data: bytes) -> None:
    for unpack in (unpack_call, unpack_reply):
        for header in (data, seal(data), seal(b"\x92\x02" + data), seal(b"\x93\x02" + data)):
            with contextlib.suppress(BadRequest, WrongVersion):
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
        with contextlib.suppress(BadRequest, WrongVersion):
            unpack(seal(bytes(data)))


def test_errors_are_rebuilt_by_code_and_name_the_server() -> None:
    error = ErrorReply(attempt=1, server="s3", code="busy", message="no room").error()
    assert isinstance(error, Busy)
    assert str(error) == "no room (server s3)"
    assert isinstance(ErrorReply(attempt=1, server="s3", code="new-code", message="x").error(), Permanent)
