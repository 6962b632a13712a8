"""What the front and a gateway say, through a datagram and back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_server.service.listeners.gateway.gateway_messages import (
    MAX_DATAGRAM_BYTES,
    Arrived,
    AskKey,
    ClientCall,
    Connections,
    Cut,
    Delivered,
    FromFront,
    FromGateway,
    GrpcSetup,
    KeyVerdict,
    Left,
    Refused,
    Reply,
    SecretsPart,
    Serving,
    Stop,
    Up,
    ZmqSetup,
    pack_datagrams,
    unpack_from_front,
    unpack_from_gateway,
)
from decode_server.service.listeners.gateway.grpc_secrets import PART_BYTES
from decode_server.service.workers.sandbox import Sandbox
from framefeed.wire import MAX_HEADER_BYTES

NUMBERS = st.integers(0, 2**63)
SETUPS = st.builds(
    ZmqSetup,
    parent=NUMBERS,
    listening=NUMBERS,
    buffer_pool=NUMBERS,
    curve_secret=st.text(max_size=40),
    io_threads=NUMBERS,
    connections=NUMBERS,
    memory_bytes=NUMBERS,
)
GRPC_SETUPS = st.builds(
    GrpcSetup,
    parent=NUMBERS,
    buffer_pool=NUMBERS,
    address=st.text(max_size=40),
    secure=st.booleans(),
    secrets=st.booleans(),
    ready=st.booleans(),
    streams=NUMBERS,
    connections=NUMBERS,
    memory_bytes=NUMBERS,
)
FROM_FRONT: st.SearchStrategy[list[FromFront]] = st.lists(
    st.one_of(
        SETUPS,
        GRPC_SETUPS,
        st.builds(SecretsPart, st.binary(), st.booleans()),
        st.builds(Serving, st.booleans()),
        st.builds(Reply, NUMBERS, st.binary(), st.binary(), NUMBERS, NUMBERS),
        st.builds(KeyVerdict, NUMBERS, st.booleans()),
        st.builds(Cut, st.binary()),
        st.builds(Stop, st.floats(allow_nan=False)),
    )
)
FROM_GATEWAY: st.SearchStrategy[list[FromGateway]] = st.lists(
    st.one_of(
        st.builds(Up, st.builds(Sandbox, st.lists(st.text(max_size=9), max_size=8).map(tuple))),
        st.builds(Arrived, st.binary(), st.text()),
        st.builds(ClientCall, st.binary(), st.lists(st.binary(), max_size=2)),
        st.builds(Left, st.binary()),
        st.builds(Delivered, st.lists(NUMBERS)),
        st.builds(AskKey, NUMBERS, st.text()),
        st.builds(Refused, st.text(), NUMBERS, st.text(), st.text()),
        st.builds(Connections, NUMBERS),
    )
)


@given(FROM_FRONT)
def test_what_a_front_says_comes_back_in_order(messages: list[FromFront]) -> None:
    packed = list(pack_datagrams(messages))
    assert [one for datagram in packed for one in unpack_from_front(memoryview(datagram))] == messages


@given(FROM_GATEWAY)
def test_what_a_gateway_says_comes_back_in_order(messages: list[FromGateway]) -> None:
    packed = list(pack_datagrams(messages))
    assert [one for datagram in packed for one in unpack_from_gateway(memoryview(datagram))] == messages


@pytest.mark.parametrize(
    "messages",
    [
        [ClientCall(b"\0abcd", [bytes(2 * MAX_HEADER_BYTES), b""])] * 10,
        [Reply(2**62, b"\0abcd", bytes(MAX_HEADER_BYTES), 2**40, 2**28)] * 10,
        [SecretsPart(bytes(PART_BYTES), more=True)] * 10,
        [Delivered(list(range(2**62, 2**62 + 1024)))] * 300,
        [Refused("handshake", 10**9, "w" * 300, "y" * 300)] * 3000,
    ],
    ids=lambda messages: type(messages[0]).__name__,
)
def test_no_datagram_is_larger_than_a_socket_takes(messages: Sequence[FromFront] | Sequence[FromGateway]) -> None:
    sizes = [len(datagram) for datagram in pack_datagrams(messages)]
    assert max(sizes) <= MAX_DATAGRAM_BYTES


def test_what_neither_says_is_refused() -> None:
    for datagram in (b"", b"\xc0", b"\x91\x92\x63\x01", bytes(100)):
        with pytest.raises(ValueError, match=r".+"):
            unpack_from_front(memoryview(datagram))
        with pytest.raises(ValueError, match=r".+"):
            unpack_from_gateway(memoryview(datagram))
