"""A circuit opens after failures in a row, is tried with one request at a time, and closes when a clip comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_client.fleet.breaker import Breaker, Circuit


def breaker(failures: int = 3) -> Breaker:
    return Breaker(failures_to_open=failures, probe_s=1.0)


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    target = breaker()
    assert [target.failed() for _ in range(2)] == [False, False]
    target.answered()
    assert [target.failed() for _ in range(3)] == [False, False, True]
    assert target.circuit is Circuit.OPEN
    assert not target.failed(), "it is open already"


def test_half_open_takes_one_failure_or_one_clip() -> None:
    for end, circuit in (("failed", Circuit.OPEN), ("served", Circuit.CLOSED)):
        target = breaker(1)
        target.failed()
        target.described()
        assert target.circuit is Circuit.HALF_OPEN
        target.answered()
        assert target.circuit is Circuit.HALF_OPEN, "an error proves no clip"
        getattr(target, end)()
        assert target.circuit is circuit


def test_probes_become_rarer_with_each_opening_up_to_a_bound() -> None:
    target, waits_s = breaker(1), []
    for _ in range(8):
        target.failed()
        target.described()
        waits_s.append(target.probe_every_s)
    assert waits_s == [1, 2, 4, 8, 16, 30, 30, 30]
    target.served()
    assert target.probe_every_s == 1


@pytest.mark.parametrize("circuit", list(Circuit))
def test_a_new_connection_begins_anew(circuit: Circuit) -> None:
    target = breaker(1)
    if circuit is not Circuit.CLOSED:
        target.failed()
    if circuit is Circuit.HALF_OPEN:
        target.described()
    assert target.circuit is circuit
    target.connected()
    assert (target.circuit, target.failures, target.openings) == (Circuit.CLOSED, 0, 0)


@given(st.lists(st.sampled_from(["connected", "failed", "answered", "described", "served"])), st.integers(1, 4))
def test_no_request_flows_between_opening_and_an_answer(signs: list[str], failures: int) -> None:
    target, in_a_row = breaker(failures), 0
    for sign in signs:
        before = target.circuit
        opened = getattr(target, sign)() is True
        in_a_row = in_a_row + 1 if sign == "failed" else in_a_row if sign == "described" else 0
        assert opened == (target.circuit is Circuit.OPEN and before is not Circuit.OPEN)
        if before is Circuit.OPEN and target.circuit is not Circuit.OPEN:
            assert sign in ("connected", "described")
        if before is Circuit.CLOSED and opened:
            assert in_a_row >= failures
