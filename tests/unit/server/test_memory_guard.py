"""When a gateway's memory is given back, and when it is more than its work explains for too long."""

from __future__ import annotations

import pytest

from decode_server.service.listeners.gateway.memory_guard import MemoryGuard, MemoryVerdict, Work
from decode_server.service.listeners.gateway.memory_watch import MemoryWatch

MIB = 1 << 20
NOTHING = Work(streams=0, sending_bytes=0)


def condemned_s(grown_mib: int, work: Work = NOTHING, connections: int = 0) -> float | None:
    """After how many seconds of it, of the first 20."""
    verdict = MemoryVerdict()
    for tick in range(200):
        if verdict.condemns(grown_mib * MIB, work, connections, 1000 + tick / 10):
            return tick / 10
    return None


def test_what_is_held_for_nobody_is_too_much_after_five_seconds() -> None:
    assert condemned_s(600) == 5.0
    assert condemned_s(49) == 5.0
    assert condemned_s(48) is None


@pytest.mark.parametrize(
    ("work", "connections"),
    [
        (Work(streams=0, sending_bytes=300 * MIB), 0),
        (Work(streams=2400, sending_bytes=0), 0),
        (NOTHING, 4096 * 3),
        (Work(streams=1000, sending_bytes=150 * MIB), 1000),
    ],
)
def test_what_clients_explain_is_not(work: Work, connections: int) -> None:
    assert condemned_s(600, work, connections) is None


def test_a_moment_below_begins_anew() -> None:
    verdict = MemoryVerdict()
    said = [verdict.condemns((10 if second == 4 else 600) * MIB, NOTHING, 0, float(second)) for second in range(12)]
    assert said.index(True) == 10


def test_free_memory_is_given_back_now_and_then() -> None:
    verdict = MemoryVerdict()
    trims = [tick for tick in range(100) if verdict.trims(40 * MIB, 1000 + tick / 10)]
    assert trims == [0, 20, 40, 60, 80]
    assert not verdict.trims(32 * MIB, 5000.0)


def test_a_process_that_holds_much_is_ended_with_the_reason() -> None:
    MemoryWatch().give_back()  # what other tests left, which would be given back meanwhile
    guard, said = MemoryGuard(MemoryWatch()), list[str]()
    held = bytearray(b"x") * (100 * MIB)
    for second in range(7):
        guard.look(NOTHING, now_s=1000.0 + second, end=said.append)
    assert len(held) == 100 * MIB
    assert len(said) == 2
    assert " MiB are held for " in said[0]
