"""When connections that come and go are worth a line."""

from __future__ import annotations

from decode_server.service.listeners.churn import CUTS, QUIET_S, WITHIN_S, Churn


def cycles(churn: Churn, *, since_s: float, every_s: float, count: int = CUTS) -> list[bool]:
    told = []
    for number in range(count):
        churn.made(since_s + number * every_s)
        told.append(churn.cut(since_s + number * every_s))
    return told


def test_it_is_told_once_and_again_after_a_minute() -> None:
    churn = Churn()
    assert cycles(churn, since_s=0.0, every_s=0.1) == [False] * (CUTS - 1) + [True]
    assert not any(cycles(churn, since_s=5.0, every_s=0.1))
    assert any(cycles(churn, since_s=5.0 + QUIET_S, every_s=0.1))


def test_slowly_is_nothing_to_tell() -> None:
    assert not any(cycles(Churn(), since_s=0.0, every_s=2 * WITHIN_S / CUTS, count=100))


def test_the_end_of_a_run_is_nothing_to_tell() -> None:
    """Many connections that stood long end at once."""
    churn = Churn()
    for _ in range(512):
        churn.made(0.0)
    assert not any(churn.cut(1000.0) for _ in range(512))
