"""Which connections a gateway keeps, and which it cuts for others."""

from __future__ import annotations

import random

from decode_server.service.listeners.gateway.zmq_connections import UNPROVED_OF_ADDRESS, ConnectionTable


def client(number: int) -> bytes:
    return number.to_bytes(5)


def test_of_one_address_the_oldest_that_said_nothing_goes_first_and_once() -> None:
    table = ConnectionTable(4096)
    for fd in range(UNPROVED_OF_ADDRESS):
        assert table.made(fd, ("10.0.0.1", fd)) is None
    for fd in range(UNPROVED_OF_ADDRESS, UNPROVED_OF_ADDRESS + 3):
        victim = table.made(fd, ("10.0.0.1", fd))
        assert victim is not None
        assert victim[0].fd == fd - UNPROVED_OF_ADDRESS
        assert "256 newer connections of its address" in victim[1]
    assert table.made(9999, ("10.0.0.2", 1)) is None, "another address has its own"


def test_who_has_said_something_is_not_cut_for_others() -> None:
    table = ConnectionTable(4096)
    for fd in range(10):
        table.made(fd, ("10.0.0.1", fd))
        assert table.proved(fd, client(fd)) == b""
    for fd in range(10, 3000):
        victim = table.made(fd, ("10.0.0.1", fd))
        assert victim is None or victim[0].fd >= 10


def test_one_address_has_half_of_all_at_most_and_others_find_room() -> None:
    table = ConnectionTable(100)
    for fd in range(80):
        victim = table.made(fd, ("10.0.0.1", fd))
        if victim is None:
            table.proved(fd, client(fd))
        else:
            assert victim[0].fd == fd, "it is the newcomer itself: all others have said something"
            table.ended(fd)
    assert len(table) == 50
    assert table.made(1000, ("10.0.0.2", 1)) is None


def test_there_are_never_more_than_the_most_once_those_that_are_to_be_cut_are() -> None:
    draws = random.Random(3)
    table, there = ConnectionTable(64), set[int]()
    for fd in range(5000):
        victim = table.made(fd, (f"10.0.0.{draws.randrange(9)}", fd))
        there.add(fd)
        if victim is not None:
            assert victim[0].client == b"", "who has said something stays"
            there.discard(victim[0].fd)
            assert table.ended(victim[0].fd) is victim[0]
        elif draws.random() < 0.7:
            assert table.proved(fd, client(fd)) == b""
        if there and draws.random() < 0.3:
            gone = draws.choice(sorted(there))
            there.discard(gone)
            ended = table.ended(gone)
            assert ended is not None
            assert ended.fd == gone
            assert table.of(ended.client) is None
        assert {one.fd for one in table} == there
        assert len(table) <= 64


def test_a_descriptor_that_is_another_s_by_now_tells_who_had_it() -> None:
    table = ConnectionTable(4)
    table.made(7, ("10.0.0.1", 1))
    assert table.proved(7, b"one") == b""
    assert table.proved(7, b"two") == b"one"
    assert table.of(b"one") is None
    assert table.of(b"two") is table.at(7)
    table.ended(7)
    assert table.proved(7, b"three") is None
    assert table.ended(7) is None


def test_bytes_without_the_end_of_a_message_are_counted_from_the_last_one() -> None:
    table = ConnectionTable(4)
    table.made(7, ("10.0.0.1", 1))
    connection = table.at(7)
    assert connection is not None
    assert connection.unheard_bytes(1000) == 1000
    connection.messages += 1
    assert connection.unheard_bytes(5000) == 0
    assert connection.unheard_bytes(6000) == 1000
    connection.messages += 1
    assert connection.unheard_bytes(9000) == 0
