"""Whoever asked is told once that the server leaves, and has a moment to stop asking."""

from __future__ import annotations

from decode_server.service.drain_notice import QUIET_S, DrainNotice


def test_those_that_asked_are_told_once_each() -> None:
    drain_notice = DrainNotice()
    for client in (b"a", b"b", b"a"):
        drain_notice.asked(client, 1.0)
    assert sorted(drain_notice.begin(2.0)) == [b"a", b"b"]


def test_it_is_quiet_when_nobody_asked_for_a_while() -> None:
    drain_notice = DrainNotice()
    assert drain_notice.quiet(0.0), "nobody ever asked"
    drain_notice.asked(b"a", 9.0)
    drain_notice.begin(10.0)
    assert not drain_notice.quiet(10.0 + QUIET_S / 2)
    drain_notice.asked(b"a", 10.0 + QUIET_S / 2)
    assert not drain_notice.quiet(10.0 + QUIET_S)
    assert drain_notice.quiet(10.0 + 2 * QUIET_S)


def test_what_it_remembers_has_a_bound() -> None:
    drain_notice = DrainNotice()
    for number in range(5000):
        drain_notice.asked(b"%d" % number, 0.0)
    assert drain_notice.begin(0.0) == [b"%d" % number for number in range(5000 - 4096, 5000)]
