"""The training loop: batches to optimizer steps, one after another; knows no model, pixels, files or terminal.

The state advances with the optimizer step: what is prefetched, fetched or computed beyond it is in no checkpoint. A
step's numbers are read when the next one has begun, and its batch is on the device before that, so that the device
never waits for this thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, Protocol

import torch
from torch import nn

from framefeed.cli.stop_signals import Stopped
from framefeed.errors import FramefeedError
from trainer_client.feed.batch import Batch
from trainer_client.training.augment.rule import AugmentOptions
from trainer_client.training.device_feed import DeviceFeed, Preparing
from trainer_client.training.gpu_idle import IdleClock, IdleSpan
from trainer_client.training.meeting import Agreed, Asks, Meeting
from trainer_client.training.out_of_memory import told
from trainer_client.training.precision import DTYPES
from trainer_client.training.ranks import Ranks
from trainer_client.training.run_state import Stored, TrainState, load_run, state_of
from trainer_client.training.step import Run, StepTensors, train_step
from trainer_client.training.tasks.task import InputsT


class NonFiniteStep(FramefeedError):
    """More steps than allowed had a loss or gradients that are not numbers; none of them has moved the weights."""

    code = "non_finite_step"


class Feeding(Protocol):
    """What the loop needs of a loader: batches in plan order, whether one is there, a state for any number of steps
    done, and the seconds waited for batches so far, by cause, to which the loop adds those for copies.
    """

    def __next__(self) -> Batch: ...

    @property
    def is_ready(self) -> bool: ...

    def count_copy_wait(self, waited_s: float) -> None: ...

    @property
    def waited_s(self) -> Mapping[str, float]: ...

    def state_after(self, steps: int) -> Mapping[str, int | str | None]: ...

    def load_state_dict(self, state: Mapping[str, object]) -> None: ...


class Stops(Protocol):
    """Whether somebody asked the run to stop (`last` is not empty), and when it may be interrupted."""

    last: str

    def interruptible(self) -> AbstractContextManager[None]: ...


class Saves(Protocol):
    """Who saves the run: what this rank says of it after a step, and what it does once all ranks agree."""

    def asks(self, step: int) -> Asks: ...

    def heed(self, agreed: Agreed) -> None: ...


class Evaluates(Protocol):
    """Who scores the run's weights between two steps: after which ones, alike on all ranks, and does it."""

    def is_due(self, step: int) -> bool: ...

    def evaluate(self, step: int, *, meeting: Meeting, stops: Stops) -> None: ...


class Ending(Enum):
    """Why a loop ended in good order."""

    FINISHED = "all steps done"
    OUT_OF_TIME = "out of time"
    STOPPED = "stopped by a signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimizer step, numbered from 1: `step_s` is the whole of it, `wait_s` the part blocked in next(loader).

    `loss` and `grad_norm` are those of the global batch; of a step that was `skipped` they may be no numbers.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    clips: int
    wait_s: float
    step_s: float
    skipped: bool = False
    parts: Mapping[str, float] | None = None
    idle_s: Mapping[str, float] | None = None
    """For how long the GPU had nothing to do between the step before and this one, by cause; None on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a run ends: after `steps` optimizer steps in all, or `max_s` seconds of this process.

    `skips` steps of this process may be not finite; one more ends the run. Steps numbered (from 0) in `pass_over` are
    not taken, whatever they hold.
    """

    steps: int
    max_s: float | None = None
    skips: int = 0
    pass_over: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Taken:
    """A step that is under way on the device."""

    step: int
    batch: Batch
    tensors: StepTensors
    learning_rate: float
    wait_s: float
    step_s: float
    idle: IdleSpan | None


class TrainLoop(Generic[InputsT]):
    """Runs steps until a limit or a stop. In this thread are called, in turn, `on_record` with each step's record, one
    step later, `on_batch` with its batch and the record, and `on_skipped` likewise if it was not finite.

    All ranks meet before each step: they stop, and save, where all have done the same steps.
    """

    def __init__(
        self, run: Run[InputsT], feed: Feeding, *, device: torch.device, augment: AugmentOptions | None = None
    ) -> None:
        """`augment` is what is done to clips on the device beside normalising them."""
        self._run, self._feed, self.device = run, feed, device
        dtype = DTYPES[run.passes.precision.name]
        preparing = Preparing(work=run.task.on_host, augment=augment or AugmentOptions(), dtype=dtype)
        self._ahead = DeviceFeed(feed, preparing, device=device)
        self._idle = IdleClock.of(device)
        self.on_record: list[Callable[[StepRecord], None]] = []
        self.on_skipped: list[Callable[[Batch, StepRecord], None]] = []
        self.on_batch: list[Callable[[Batch, StepRecord], None]] = []
        self.last_batch: Batch | None = None
        self._under_way: _Taken | None = None
        self._skips = 0
        self.ranks: Ranks = run.passes.parallel.ranks
        self.meeting = Meeting(self.ranks)

    @property
    def steps_done(self) -> int:
        """Steps of the whole run, those of processes before this one too."""
        return self._run.step

    @property
    def model(self) -> nn.Module:
        """What learns."""
        return self._run.task.model

    def run(
        self,
        limits: Limits,
        *,
        stops: Stops,
        saves: Saves | None = None,
        evaluates: Evaluates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Ending:
        """Train. Blocks until the end; each wait for data is bounded by the loader. What is due to be scored after a
        step, or before the first, is scored before the next one begins.

        One rank that is asked to stop, or out of time, ends all of them after the same step, also while they wait for
        data. Raises OutOfMemory, which says what would fit, NonFiniteStep when too many steps were not finite, RankLost
        when another rank is gone, and what next(loader) raises.
        """
        began_s = clock()
        late = False
        with self._ahead:
            self._evaluate(evaluates, limits, stops)
            while self.steps_done < limits.steps:
                step_began_s = clock()
                try:
                    is_there = not late and self._fetch(limits, stops)
                except FramefeedError:
                    self._settle(limits)
                    raise
                fetched_s = clock()
                agreed = self._meet(stops, saves, late=late)
                if agreed.stop or agreed.late:
                    self._settle(limits)
                    return Ending.STOPPED if agreed.stop else Ending.OUT_OF_TIME
                assert is_there, "a rank without a batch asks to stop"
                self._take(limits, times_s=(step_began_s, fetched_s), clock=clock)
                self._evaluate(evaluates, limits, stops)
                late = limits.max_s is not None and clock() - began_s >= limits.max_s
            self._settle(limits)
        return Ending.FINISHED

    def state(self) -> TrainState:
        """Where the run stands, after the steps that are done: its live tensors, and this rank's data."""
        return state_of(self._run, data=self._feed.state_after(self.steps_done))

    def load_state(self, stored: Stored) -> None:
        """Go on after the stored step. Raises BadInput when the loader's plan or the run's tensors are others."""
        self._feed.load_state_dict(stored.data)
        self._ahead.clear()
        load_run(self._run, stored)

    def _meet(self, stops: Stops, saves: Saves | None, *, late: bool) -> Agreed:
        """What all ranks do before the next step; saving is done at once."""
        asks = Asks() if saves is None else saves.asks(self.steps_done)
        agreed = self.meeting.meet(replace(asks, stop=bool(stops.last), late=late), stopping=lambda: bool(stops.last))
        if saves is not None:
            saves.heed(agreed)
        return agreed

    def _evaluate(self, evaluates: Evaluates | None, limits: Limits, stops: Stops) -> None:
        if evaluates is not None and evaluates.is_due(self.steps_done):
            self._settle(limits)
            evaluates.evaluate(self.steps_done, meeting=self.meeting, stops=stops)
            if self._idle is not None:
                self._idle.pause()

    def _fetch(self, limits: Limits, stops: Stops) -> bool:
        """Have the next batch, and those behind it that are there. False if somebody asked to stop before it was."""
        try:
            self._ahead.fetch(within=stops.interruptible())
        except Stopped:
            return False
        self._ahead.fill(most=limits.steps - self.steps_done)
        return True

    def _take(self, limits: Limits, *, times_s: tuple[float, float], clock: Callable[[], float]) -> None:
        began_s, fetched_s = times_s
        step, before = self._run.step, self._under_way
        if step in limits.pass_over:
            self._run.step += 1
            self._ahead.drop()
            return
        rate = self._run.learning.schedule.at(step)
        batch = self._ahead.take()
        self._feed.count_copy_wait(self._ahead.waited_s)
        idle = None if self._idle is None else self._idle.begin_step(self._feed.waited_s)
        with told(self._run, batch):
            tensors = train_step(self._run, batch)
        if self._idle is not None:
            self._idle.end_step()
        self.last_batch = batch.batch
        self._tell(before, limits)  # blocks until the step before is done, while this one is under way
        self._under_way = _Taken(
            step=step + 1,
            batch=batch.batch,
            tensors=tensors,
            learning_rate=rate,
            wait_s=fetched_s - began_s + self._ahead.waited_s,
            step_s=clock() - began_s,
            idle=idle,
        )

    def _settle(self, limits: Limits) -> None:
        """Read the numbers of the step that is under way."""
        taken, self._under_way = self._under_way, None
        self._tell(taken, limits)

    def _tell(self, taken: _Taken | None, limits: Limits) -> None:
        if taken is None:
            return
        seen = taken.tensors.read()
        record = StepRecord(
            step=taken.step,
            loss=seen.loss,
            learning_rate=taken.learning_rate,
            grad_norm=seen.grad_norm,
            clips=len(taken.batch) * self._run.passes.parallel.ranks.world,
            wait_s=taken.wait_s,
            step_s=taken.step_s,
            skipped=seen.skipped,
            parts=seen.parts,
            idle_s=None if taken.idle is None else taken.idle.by_cause(),
        )
        for hear in self.on_record:
            hear(record)
        for look in self.on_batch:
            look(taken.batch, record)
        if seen.skipped and seen.scale <= 1.0:  # with a larger one float16 overflowed, which the scale will cure
            self._count_skip(taken.batch, record, limits)

    def _count_skip(self, batch: Batch, record: StepRecord, limits: Limits) -> None:
        for hear in self.on_skipped:
            hear(batch, record)
        self._skips += 1
        if self._skips > limits.skips:
            raise NonFiniteStep(
                f"step {record.step - 1}: loss is {record.loss}, gradient norm is {record.grad_norm}, wanted finite "
                f"numbers; its update was skipped, as were {self._skips} in all, and {limits.skips} may be (lower the "
                "learning rate, clip gradients, or look at this step's clips)"
            )
