"""The lifecycle's table, and when dead workers are started again."""

from __future__ import annotations

import pytest

from decode_server.service.lifecycle import NEXT, Lifecycle, State
from decode_server.service.workers.restarts import DELAYS_S, WINDOW_S, Restarts


def test_every_state_has_its_row_and_only_stopped_is_an_end() -> None:
    assert set(NEXT) == set(State)
    assert [state for state, after in NEXT.items() if not after] == [State.STOPPED]


@pytest.mark.parametrize("first", State)
@pytest.mark.parametrize("second", State)
def test_only_steps_of_the_table_are_taken(first: State, second: State) -> None:
    lifecycle = Lifecycle()
    if first is not State.STARTING:
        lifecycle.move(first)
    if second is first:
        assert not lifecycle.move(second)
    elif second in NEXT[first]:
        assert lifecycle.move(second)
        assert lifecycle.state is second
    else:
        with pytest.raises(AssertionError, match="cannot become"):
            lifecycle.move(second)


def test_the_first_death_is_forgiven_and_more_of_them_wait_longer_and_longer() -> None:
    restarts = Restarts()
    now_s, waits = 0.0, []
    for _ in range(len(DELAYS_S) + 1):
        start_s = restarts.died(now_s=now_s, was_ready=True)
        waits.append(start_s - now_s)
        now_s = start_s
    assert waits == [*DELAYS_S, DELAYS_S[-1]]
    assert restarts.died(now_s=now_s + WINDOW_S + 1, was_ready=True) == now_s + WINDOW_S + 1


def test_only_starts_that_failed_in_a_row_count_as_hopeless() -> None:
    restarts = Restarts()
    restarts.died(now_s=0, was_ready=False)
    restarts.died(now_s=1, was_ready=False)
    assert restarts.failed_starts == 2
    restarts.came_up()
    restarts.died(now_s=2, was_ready=True)
    assert restarts.failed_starts == 0
