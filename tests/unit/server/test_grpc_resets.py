"""Who opens streams to end them is told of for a while; who does so now and then, and others, are not."""

from __future__ import annotations

from decode_server.service.listeners.gateway.grpc_resets import UNUSED_AT_ONCE, WINDOW_S, UnusedStreams


def test_a_flood_is_one_until_its_window_is_over_and_concerns_nobody_else() -> None:
    unused = UnusedStreams()
    assert not any(unused.ended("a", 100.0) for _ in range(UNUSED_AT_ONCE))
    assert unused.ended("a", 100.0 + WINDOW_S - 0.1)
    assert not unused.ended("b", 100.0)
    assert not unused.ended("a", 100.0 + WINDOW_S), "a new window begins"


def test_now_and_then_is_no_flood() -> None:
    unused = UnusedStreams()
    assert not any(unused.ended("a", number * WINDOW_S / UNUSED_AT_ONCE * 1.1) for number in range(10 * UNUSED_AT_ONCE))


def test_many_addresses_take_bounded_memory() -> None:
    unused = UnusedStreams()
    for number in range(100_000):
        unused.ended(f"address {number}", 0.0)
    assert repr(unused) == "UnusedStreams(of 1024 addresses)"
