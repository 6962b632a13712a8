"""A connection that opens streams to end them is a flood for a while; who does so now and then, and others, are not."""

from __future__ import annotations

from decode_server.service.listeners.gateway.grpc_resets import UNUSED_AT_ONCE, WINDOW_S, UnusedStreams


def test_a_flood_is_one_until_its_window_is_over_and_concerns_nobody_else() -> None:
    unused = UnusedStreams()
    for _ in range(UNUSED_AT_ONCE):
        assert not unused.is_flood("ipv4:1.2.3.4:5", 100.0)
        unused.ended("ipv4:1.2.3.4:5", 100.0)
    assert unused.is_flood("ipv4:1.2.3.4:5", 100.0 + WINDOW_S - 0.1)
    assert not unused.is_flood("ipv4:1.2.3.4:6", 100.0)
    assert not unused.is_flood("ipv4:1.2.3.4:5", 100.0 + WINDOW_S)
    unused.ended("ipv4:1.2.3.4:5", 100.0 + WINDOW_S)
    assert not unused.is_flood("ipv4:1.2.3.4:5", 100.0 + WINDOW_S), "a new window begins"


def test_now_and_then_is_no_flood() -> None:
    unused = UnusedStreams()
    for number in range(10 * UNUSED_AT_ONCE):
        unused.ended("a", number * WINDOW_S / UNUSED_AT_ONCE * 1.1)
        assert not unused.is_flood("a", number * WINDOW_S / UNUSED_AT_ONCE * 1.1)


def test_many_connections_take_bounded_memory() -> None:
    unused = UnusedStreams()
    for number in range(100_000):
        unused.ended(f"ipv4:1.2.3.4:{number}", 0.0)
    assert repr(unused) == "UnusedStreams(of 1024 connections)"
