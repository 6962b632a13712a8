"""What the health pages say, over a fake clock."""

from __future__ import annotations

import pytest

from decode_server.service.health import ALIVE_S, Pages, Status
from decode_server.service.lifecycle import State


def code(path: str, state: State, *, age_s: float = 0.0) -> int:
    status = Status(state=state, turned_s=100.0, detail="2 of 2 workers up")
    return Pages(lambda: status, lambda: b"metrics", clock=lambda: 100.0 + age_s).get(path)[0]


@pytest.mark.parametrize(("state", "ready"), [(s, 200 if s is State.READY else 503) for s in State])
def test_only_a_ready_server_is_ready_and_any_that_turns_is_healthy(state: State, ready: int) -> None:
    assert code("/readyz", state) == ready
    assert code("/healthz", state) == 200


def test_a_loop_that_no_longer_turns_is_neither_healthy_nor_ready() -> None:
    assert code("/healthz", State.READY, age_s=ALIVE_S) == 503
    assert code("/readyz", State.READY, age_s=ALIVE_S) == 503


def test_metrics_do_not_wait_for_a_loop_that_is_stuck() -> None:
    def stuck() -> bytes:
        raise TimeoutError("the loop has been in one turn for 2 s")

    status = Status(state=State.READY, turned_s=0.0, detail="")
    assert Pages(lambda: status, stuck, clock=lambda: 0.0).get("/metrics")[0] == 503


def test_other_paths_are_not_found() -> None:
    assert code("/metrics", State.READY) == 200
    assert code("/", State.READY) == 404
