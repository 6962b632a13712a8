"""Values from outside in lines for people: bounded, printable, and never a reason to fail."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.cli.log_lines import LineFormatter
from framefeed.errors import BadInput, BadRequest, StorageFault
from framefeed.request import ClipRequest
from framefeed.show_value import LINE_CHARS, VALUE_CHARS, one_line, show_value
from framefeed.wire import ErrorReply, Load, ServerReply, pack_reply, unpack_reply
from tests.integration.serving import request

texts = st.text(st.characters(exclude_categories=()), max_size=2000)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=500)
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8)


def nested(depth: int) -> object:
    value: object = []
    for _ in range(depth):
        value = [value]
    return value


@given(values)
def test_any_value_is_short_and_printable(value: object) -> None:
    shown = show_value(value)
    assert shown.isprintable()
    assert 0 < len(shown) <= VALUE_CHARS


@given(texts, st.integers(8, 400))
def test_any_text_is_one_bounded_line_with_both_its_ends(text: str, chars: int) -> None:
    line = one_line(text, chars=chars)
    assert line.isprintable()
    assert len(line) <= chars
    assert line == text or not (text.isprintable() and len(text) <= chars)
    if text.isprintable() and len(text) > chars:
        assert line.startswith(text[: chars // 2])
        assert line.endswith(text[-(chars // 4) :])


@pytest.mark.parametrize(
    "value",
    [nested(100_000), {"x": nested(5000)}, 10**5000, "\x1b]0;x\x07" * 9999, "\ud800"],
    ids=["nested", "nested in a map", "digits", "title", "surrogate"],
)
def test_what_has_no_end_or_no_repr_is_shown(value: object) -> None:
    assert show_value(value).isprintable()
    assert len(show_value(value)) <= VALUE_CHARS


def test_errors_are_one_line_from_the_start_and_those_of_the_wire_bounded() -> None:
    foreign = "v\x1b[2J\n" * 1000
    assert len(str(BadRequest(foreign))) <= LINE_CHARS
    assert len(str(StorageFault(foreign))) <= LINE_CHARS
    assert str(BadInput(foreign)).isprintable()
    assert str(BadInput("a file's path " * 40)) == "a file's path " * 40, "what is the user's own is told whole"


def test_a_reply_is_tamed_when_it_is_made_and_when_it_is_read() -> None:
    reply = unpack_reply(pack_reply(ErrorReply(attempt=1, server="s", code="busy", message="\x1b[31m\n" * 5000)))
    assert isinstance(reply, ErrorReply)
    assert reply.message.isprintable()
    assert len(reply.message) <= LINE_CHARS
    with pytest.raises(BadRequest, match="name"):
        ServerReply(attempt=1, server="s\n", fingerprint="f", videos=1, workers=1, state="ready")
    with pytest.raises(BadRequest, match="finite"):
        Load(front_s=float("nan"))


def test_a_video_name_that_cannot_travel_is_refused() -> None:
    with pytest.raises(BadRequest, match="no Unicode text"):
        request("clip\udcff")


def test_a_request_names_what_it_refuses_in_a_line() -> None:
    body = {name: getattr(request(), name) for name in ClipRequest.__struct_fields__}
    with pytest.raises(BadRequest) as refused:
        ClipRequest(**body | {"pixel_format": "\x1b[2J" * 500})
    assert len(str(refused.value)) <= LINE_CHARS


def test_a_log_record_is_one_line_and_its_traceback_has_no_escapes() -> None:
    formatter = LineFormatter("%(levelname)s %(message)s")
    try:
        raise ValueError("\x1b[2Jgone\x07")
    except ValueError as error:
        at = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "decoding %s failed", ("a\n2026 INFO ready\x1b[2J",), at)
    head, *trace = formatter.format(record).split("\n")
    assert head == "ERROR decoding a\\n2026 INFO ready\\x1b[2J failed"
    assert len(trace) > 2
    assert all(line.isprintable() for line in trace)
