"""Idle time of a GPU by events that a test sets, its causes, and the metric."""

from __future__ import annotations

import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest

from trainer_client.training.gpu_idle import HOST, IDLE_CAUSES, IdleClock, shared_out
from trainer_client.training.loop import StepRecord
from trainer_client.training.watch.train_metrics import TrainMetrics


class Timeline:
    """A device whose clock a test moves; an event has the time at which it was recorded."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def event(self) -> _Event:
        return _Event(self)


class _Event:
    def __init__(self, line: Timeline) -> None:
        self._line, self.at_ms = line, -1.0

    def record(self) -> None:
        self.at_ms = self._line.now_ms

    def elapsed_time(self, end_event: _Event) -> float:
        return end_event.at_ms - self.at_ms


def test_idle_time_is_from_a_step_s_end_to_the_next_one_s_begin_by_what_was_waited_for() -> None:
    line = Timeline()
    clock = IdleClock(line.event)
    assert clock.begin_step({"decode": 5.0}) is None
    line.now_ms = 100.0
    clock.end_step()
    line.now_ms = 130.0
    span = clock.begin_step({"decode": 5.01, "copy": 0.01})
    assert span is not None
    assert span.by_cause() == pytest.approx({"decode": 0.01, "copy": 0.01, HOST: 0.01})


@pytest.mark.parametrize(
    ("idle_s", "waited_s", "wanted"),
    [
        (0.3, {}, {HOST: 0.3}),
        (0.3, {"read": 0.0}, {HOST: 0.3}),
        (0.1, {"read": 0.3, "decode": 0.1}, {"read": 0.075, "decode": 0.025, HOST: 0.0}),
        (1.0, {"read": 0.3}, {"read": 0.3, HOST: 0.7}),
    ],
)
def test_shares_sum_to_the_idle_time(idle_s: float, waited_s: dict[str, float], wanted: dict[str, float]) -> None:
    seen = shared_out(idle_s, waited_s)
    assert seen == pytest.approx(wanted)
    assert sum(seen.values()) == pytest.approx(idle_s)


def test_the_metric_is_there_from_the_start_by_cause_on_a_gpu_and_not_on_a_cpu() -> None:
    registry, on_cpu = CollectorRegistry(), CollectorRegistry()
    metrics = TrainMetrics(registry, rank=3)
    TrainMetrics(on_cpu, on_gpu=False)
    name = "framefeed_trainer_gpu_idle_seconds_total"
    for cause in IDLE_CAUSES:
        assert f'{name}{{cause="{cause}",rank="3"}} 0.0' in generate_latest(registry).decode()
    assert name not in generate_latest(on_cpu).decode()
    record = StepRecord(
        step=1, loss=1.0, learning_rate=0.1, grad_norm=1.0, clips=3, wait_s=0.0, step_s=1.0, idle_s={"decode": 0.25}
    )
    metrics.record(record)
    assert f'{name}{{cause="decode",rank="3"}} 0.25' in generate_latest(registry).decode()
    assert IdleClock.of(torch.device("cpu")) is None
