"""The loop: as many steps as wanted, state that advances with the optimizer, clean ends."""

from __future__ import annotations

import math
import os
import signal
from itertools import count

import pytest
import torch

from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import CorruptMedia
from tests.unit.trainer.small_run import LinearTask, MadeFeed, NoStops, make_loop
from tests.unit.trainer.stored_runs import Kept
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.loop import Ending, Limits, NonFiniteStep, StepRecord, Stops
from trainer_client.training.meeting import Meeting
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.task import ClipInputs, Losses


def test_takes_every_batch_once_and_learns() -> None:
    task, records = LinearTask(), list[StepRecord]()
    loop = make_loop(steps=60, task=task)
    loop.on_record.append(records.append)
    assert loop.run(Limits(steps=60), stops=NoStops()) is Ending.FINISHED
    assert task.seen == list(range(60))
    assert [record.step for record in records] == list(range(1, 61))
    assert sum(r.loss for r in records[-10:]) < 0.5 * sum(r.loss for r in records[:10])
    assert max(r.learning_rate for r in records) == pytest.approx(1e-2)
    assert all(r.clips == 3 and 0 <= r.wait_s <= r.step_s for r in records)


def test_the_time_limit_ends_between_steps() -> None:
    ticks = count()
    loop = make_loop(steps=100)
    ending = loop.run(Limits(steps=100, max_s=20.0), stops=NoStops(), clock=lambda: float(next(ticks)))
    assert ending is Ending.OUT_OF_TIME
    assert loop.steps_done == 5  # four looks at the clock a step


def test_a_resumed_run_takes_the_same_steps() -> None:
    whole, losses = make_loop(steps=20), list[float]()
    whole.on_record.append(lambda record: losses.append(record.loss))
    whole.run(Limits(steps=20), stops=NoStops())

    first, seen = make_loop(steps=20), list[float]()
    first.on_record.append(lambda record: seen.append(record.loss))
    first.run(Limits(steps=7), stops=NoStops())
    state = Kept.of(first.state())
    assert state.step == 7
    assert state.data["position"] == 7 * 3
    later = make_loop(steps=20)
    torch.manual_seed(99)
    later.load_state(state)
    later.on_record.append(lambda record: seen.append(record.loss))
    later.run(Limits(steps=20), stops=NoStops())
    assert seen == losses


def test_numbers_that_are_none_stop_the_run_before_the_weights_move() -> None:
    task = LinearTask()
    loop = make_loop(steps=10, task=task)
    loop.run(Limits(steps=2), stops=NoStops())
    before = [parameter.clone() for parameter in task.model.parameters()]
    task.scale = math.nan
    skipped = list[tuple[list[int], int]]()
    loop.on_skipped.append(lambda batch, record: skipped.append((batch.positions.tolist(), record.step)))
    with pytest.raises(NonFiniteStep, match=r"step 4: loss is nan.*3 in all, and 2 may be"):
        loop.run(Limits(steps=10, skips=2), stops=NoStops())
    # Read one step later: the step behind the one too many was under way already, and was skipped as well.
    assert loop.steps_done == loop.state().step == 6
    assert skipped == [([0, 1, 2], step) for step in (3, 4, 5)]
    assert all(torch.equal(a, b) for a, b in zip(before, task.model.parameters(), strict=True))


def test_an_error_of_the_feed_leaves_the_state_of_the_last_step() -> None:
    def fail(step: int) -> None:
        if step == 4:
            raise CorruptMedia("clip of v [0, 1) s")

    loop = make_loop(steps=10, feed=MadeFeed(fail))
    with pytest.raises(CorruptMedia):
        loop.run(Limits(steps=10), stops=NoStops())
    assert loop.state().data["position"] == 4 * 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_wait_and_the_second_has_its_old_meaning(number: signal.Signals) -> None:
    calls = list[int]()
    before = signal.signal(number, lambda n, frame: calls.append(n))
    try:
        with StopSignals(first_only=True) as stops:
            loop = make_loop(steps=10, feed=MadeFeed(lambda step: step == 3 and os.kill(os.getpid(), number), late=[3]))
            assert loop.run(Limits(steps=10), stops=stops) is Ending.STOPPED
            assert stops.last == number.name
            assert loop.steps_done == 3
            assert calls == []
            os.kill(os.getpid(), number)
            assert calls == [number]
    finally:
        signal.signal(number, before)


def test_a_signal_during_a_step_lets_it_finish() -> None:
    class Interrupted(LinearTask):
        def prepare(self, batch: DeviceBatch) -> ClipInputs:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().prepare(batch)

    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(first_only=True) as stops:
        loop = make_loop(steps=10, task=Interrupted())
        assert loop.run(Limits(steps=10), stops=stops) is Ending.STOPPED
    assert loop.steps_done == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_that_is_not_finite_is_left_out_and_the_run_goes_on() -> None:
    """With the weights it would have without that step's update, and all steps after it."""

    class Broken(LinearTask):
        def loss(self, rows: torch.Tensor, x: ClipInputs, ranks: Ranks) -> Losses:
            self.scale = math.inf if self.seen[-1] == 4 else 1.0
            return super().loss(rows, x, ranks)

    records = list[StepRecord]()
    task = Broken()
    loop = make_loop(steps=10, task=task)
    loop.on_record.append(records.append)
    assert loop.run(Limits(steps=10, skips=1), stops=NoStops()) is Ending.FINISHED
    assert [record.step for record in records if record.skipped] == [5]
    assert not math.isfinite(records[4].loss)
    over = LinearTask()
    passed = make_loop(steps=10, task=over)
    passed.run(Limits(steps=10, pass_over=frozenset({4})), stops=NoStops())
    assert over.seen == [step for step in range(10) if step != 4]
    pairs = zip(task.model.parameters(), over.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


class Examiner:
    """Scores after some steps: has the model in eval mode, uses it, and draws."""

    def __init__(self, task: LinearTask, due: set[int], told: list[StepRecord]) -> None:
        self.seen = list[tuple[int, int]]()
        self._task, self._due, self._told = task, due, told

    def is_due(self, step: int) -> bool:
        return step in self._due

    def evaluate(self, step: int, *, meeting: Meeting, stops: Stops) -> None:
        self._task.model.eval()
        with torch.no_grad():
            self._task.model(torch.rand(4, 48))
        self.seen.append((step, len(self._told)))


def test_a_run_that_is_scored_between_steps_is_the_run_that_is_not() -> None:
    plain, scored = make_loop(steps=9), make_loop(steps=9, task=(task := LinearTask()))
    records = list[StepRecord]()
    scored.on_record.append(records.append)
    examiner = Examiner(task, {0, 4, 9}, records)
    assert scored.run(Limits(steps=9), stops=NoStops(), evaluates=examiner) is Ending.FINISHED
    plain.run(Limits(steps=9), stops=NoStops())
    assert examiner.seen == [(0, 0), (4, 4), (9, 9)], "and each step is told before it is scored"
    pairs = zip(plain.state().tensors.values(), scored.state().tensors.values(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
