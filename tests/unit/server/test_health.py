"""What the health pages say, over a fake clock, and how the metrics account for time."""

from __future__ import annotations

import pytest

from decode_server.service.health import ALIVE_S, Pages, Status
from decode_server.service.lifecycle import State
from decode_server.service.metrics import Gauges, Metrics
from tests.integration.serving import parse_metrics


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


def test_empty_and_full_time_of_the_queue_is_charged_to_what_it_was() -> None:
    def gauges(*, queued: int, busy: int) -> Gauges:
        return Gauges(
            state=State.READY,
            in_flight=queued,
            queued=queued,
            queue_full=queued == 8,
            workers=2,
            workers_busy=busy,
            stuck_reads=0,
            zombies=0,
            buffer_pool_used_bytes=0,
        )

    metrics = Metrics()
    metrics.observe(gauges(queued=0, busy=1), now_s=10.0)
    metrics.observe(gauges(queued=0, busy=2), now_s=12.0)  # nothing waits, but nobody idles: neither
    metrics.observe(gauges(queued=8, busy=2), now_s=19.0)
    metrics.observe(gauges(queued=0, busy=0), now_s=23.0)
    values = parse_metrics(metrics.render().decode())
    assert values["framefeed_server_queue_empty_seconds_total"] == 2.0
    assert values["framefeed_server_queue_full_seconds_total"] == 4.0
    assert values['framefeed_server_state{framefeed_server_state="ready"}'] == 1.0
