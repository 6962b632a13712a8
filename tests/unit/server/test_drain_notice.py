"""Whoever asked is told once that the server leaves, and has a moment to stop asking."""

from __future__ import annotations

from decode_server.service.drain_notice import QUIET_S, Farewell


def test_those_that_asked_are_told_once_each() -> None:
    farewell = Farewell()
    for client in (b"a", b"b", b"a"):
        farewell.asked(client, 1.0)
    assert sorted(farewell.begin(2.0)) == [b"a", b"b"]


def test_it_is_quiet_when_nobody_asked_for_a_while() -> None:
    farewell = Farewell()
    assert farewell.quiet(0.0), "nobody ever asked"
    farewell.asked(b"a", 9.0)
    farewell.begin(10.0)
    assert not farewell.quiet(10.0 + QUIET_S / 2)
    farewell.asked(b"a", 10.0 + QUIET_S / 2)
    assert not farewell.quiet(10.0 + QUIET_S)
    assert farewell.quiet(10.0 + 2 * QUIET_S)


def test_what_it_remembers_has_a_bound() -> None:
    farewell = Farewell()
    for number in range(5000):
        farewell.asked(b"%d" % number, 0.0)
    assert farewell.begin(0.0) == [b"%d" % number for number in range(5000 - 4096, 5000)]
