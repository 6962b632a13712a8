"""What both ends of shm:// say over their socket."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.shm import (
    MAX_BACK,
    Lease,
    is_trusted,
    pack_back,
    pack_call,
    pack_reply,
    socket_address,
    unpack_from_client,
    unpack_reply,
)
from framefeed.wire import MAX_HEADER_BYTES

NUMBERS = st.integers(1, 2**64 - 1)


@given(st.binary(max_size=MAX_HEADER_BYTES))
def test_a_call_comes_back(header: bytes) -> None:
    assert unpack_from_client(pack_call(header)) == header


@given(st.lists(NUMBERS, min_size=1, max_size=MAX_BACK))
def test_leases_come_back(numbers: list[int]) -> None:
    assert unpack_from_client(pack_back(numbers)) == tuple(numbers)


@given(st.binary(max_size=300), st.none() | st.builds(Lease, NUMBERS, st.integers(0, 2**63), st.integers(0, 2**63)))
def test_a_reply_comes_back(header: bytes, lease: Lease | None) -> None:
    assert unpack_reply(pack_reply(header, lease)) == (header, lease)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"B",
        b"B1234567",
        b"B" + bytes(8 * MAX_BACK + 8),
        b"C" + bytes(MAX_HEADER_BYTES + 1),
        b"X" + bytes(8),
    ],
    ids=["nothing", "no leases", "half a lease", "too many leases", "too long a header", "another kind"],
)
def test_what_no_client_says_is_refused(datagram: bytes) -> None:
    with pytest.raises(ValueError, match="wanted a call or leases"):
        unpack_from_client(datagram)


@given(st.binary(max_size=50))
def test_any_datagram_is_understood_or_refused(datagram: bytes) -> None:
    for unpack in (unpack_from_client, unpack_reply):
        try:
            unpack(datagram)
        except ValueError:
            continue


def test_a_reply_that_is_none_is_refused() -> None:
    for datagram in (b"", bytes(23), bytes(MAX_HEADER_BYTES + 25)):
        with pytest.raises(ValueError, match="wanted 24 to"):
            unpack_reply(datagram)


def test_names_are_abstract_and_paths_are_files() -> None:
    assert socket_address("shm://@a.b-c") == "\0framefeed-shm-a.b-c"
    assert socket_address("shm:///run/framefeed") == "/run/framefeed"


class Peer:
    """A socket whose other end is a user's."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.pack("3i", 4711, self._uid, 0)


def test_only_this_user_and_root_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert [is_trusted(Peer(uid)) for uid in (0, 1000, 1001, 65534)] == [True, True, False, False]  # type: ignore[arg-type]
