"""Entries of servers: whole or refused, never half believed; standing still is judged by the reader's clock."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.server_entry import ServerEntry, Standstill, host_id, unpack_entry
from tests.entries import entry

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NAME = TEXT.filter(str.isprintable)


@given(
    st.builds(
        ServerEntry,
        server=NAME,
        endpoints=st.lists(NAME, max_size=3).map(tuple),
        host=TEXT,
        state=NAME,
        beat=st.integers(1, 1 << 60),
        lease_s=st.floats(0.1, 1e6),
        sockets=st.lists(st.integers(0, 9), max_size=3).map(tuple),
        threads=st.integers(1, 999),
        fingerprint=NAME,
        metrics_url=TEXT,
        pid=st.integers(1, 1 << 22),
        dataset=TEXT,
    )
)
def test_an_entry_comes_back_as_it_was_written(written: ServerEntry) -> None:
    assert unpack_entry(written.pack()) == written


@given(st.integers(0, 400))
def test_a_part_of_an_entry_is_none(length: int) -> None:
    text = entry().pack().rstrip()
    if length < len(text):
        with pytest.raises(ValueError, match=r"\w"):
            unpack_entry(text[:length])


@given(st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)))
def test_any_other_json_is_none(body: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        unpack_entry(json.dumps(body))


@pytest.mark.parametrize(
    "change",
    [
        {"beat": "1"},
        {"endpoints": "tcp://10.0.0.5:5555"},
        {"endpoints": [5555]},
        {"endpoints": {"tcp": 1}},
        {"sockets": ["0"]},
        {"lease_s": None},
        {"lease_s": 0.0},
        {"lease_s": float("nan")},
        {"dataset": 7},
        {"more": 1},
        {"framefeed_server": 2},
        {"framefeed_server": True},
        {"beat": True},
        {"beat": 1.0},
    ],
)
def test_an_entry_with_a_strange_field_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"no server entry of version 1: .*(field|Expected|Invalid|malformed|lease_s is)"
    ):
        unpack_entry(json.dumps({"framefeed_server": 1, **msgspec.to_builtins(entry()), **change}))


def test_an_entry_without_its_version_or_another_field_is_none() -> None:
    body = json.loads(entry().pack())
    for name in body.keys() - {"dataset"}:  # which servers of older versions do not have
        with pytest.raises(ValueError, match=f"missing required field `{name}`"):
            unpack_entry(json.dumps({other: value for other, value in body.items() if other != name}))


def test_an_entry_of_a_server_that_knew_no_data_sets_is_one() -> None:
    body = json.loads(entry(dataset="v1-0").pack())
    assert unpack_entry(json.dumps(body)).dataset == "v1-0"
    del body["dataset"]
    assert unpack_entry(json.dumps(body)) == entry()


def test_what_stands_still_is_told_by_the_readers_clock_alone() -> None:
    still = Standstill()
    assert still.saw("a", 7, 100.0) == 0
    assert still.saw("b", 1, 100.0) == 0
    assert still.saw("a", 7, 130.0) == 30
    assert still.saw("a", 8, 140.0) == 0, "it moved"
    assert still.saw("a", 3, 150.0) == 0, "backwards, after a restart, is a move too"
    assert still.saw("a", 3, 155.0) == 5
    still.keep({"a"})
    assert still.saw("b", 1, 200.0) == 0, "forgotten"
    assert still.saw("a", 3, 200.0) == 50


def test_processes_of_this_host_agree_on_its_id() -> None:
    assert host_id() == host_id()
    assert "net:[" in host_id()


def test_garbage_without_end_is_no_entry() -> None:
    with pytest.raises(ValueError, match="nested without end"):
        unpack_entry('{"more": ' + "[" * 60_000)
    with pytest.raises(ValueError, match="no server entry"):
        unpack_entry("[" * 60_000)
