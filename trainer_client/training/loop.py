"""The training loop: batches to optimizer steps, one after another; knows no model, pixels, files or terminal.

The state advances with the optimizer step: what is prefetched, fetched or computed beyond it is in no checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor, nn

from framefeed.cli.stop_signals import Stopped
from trainer_client.feed.batch import Batch
from trainer_client.training.compute import Compute
from trainer_client.training.learning import Learning
from trainer_client.training.optimizers import clip_gradients, require_finite, set_learning_rate


class Task(Protocol):
    """What is trained: a model, and the loss of a batch, which augments, masks and runs forward."""

    model: nn.Module

    def loss(self, batch: Batch) -> Tensor: ...


class Feeding(Protocol):
    """What the loop needs of a loader: batches in plan order, and a state for any number of steps done."""

    def __next__(self) -> Batch: ...

    def state_after(self, steps: int) -> Mapping[str, int | str | None]: ...

    def load_state_dict(self, state: Mapping[str, object]) -> None: ...


class Stops(Protocol):
    """Whether somebody asked the run to stop (`last` is not empty), and when it may be interrupted."""

    last: str

    def interruptible(self) -> AbstractContextManager[None]: ...


class Ending(Enum):
    """Why a loop ended in good order."""

    FINISHED = "all steps done"
    OUT_OF_TIME = "out of time"
    STOPPED = "stopped by a signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimizer step, numbered from 1: `step_s` is the whole of it, `wait_s` the part blocked in next(loader)."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    clips: int
    wait_s: float
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a run ends: after `steps` optimizer steps in all, or `max_s` seconds of this process."""

    steps: int
    max_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """All that the next step depends on, on the CPU or the model's device."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, object]
    data: dict[str, int | str | None]
    rng: dict[str, Tensor]


class TrainLoop:
    """Runs steps until a limit or a stop. `after_step` are called in turn with each step's record, in this thread."""

    def __init__(self, task: Task, feed: Feeding, *, learning: Learning, compute: Compute) -> None:
        self._task, self._feed = task, feed
        self._learning, self._compute = learning, compute
        self.after_step: list[Callable[[StepRecord], None]] = []
        self.steps_done = 0
        self.last_batch: Batch | None = None

    def run(self, limits: Limits, *, stops: Stops, clock: Callable[[], float] = time.monotonic) -> Ending:
        """Train. Blocks until the end; each wait for data is bounded by the loader.

        Raises NonFiniteStep with the weights of the step before, and what next(loader) raises.
        """
        began_s = clock()
        while (ending := self._ending(limits, stops, ran_s=clock() - began_s)) is None:
            step_began_s = clock()
            batch = self._fetch(stops)
            if batch is None:
                continue
            fetched_s = clock()
            loss = self._forward(batch)
            norm = self._backward(loss)
            seen_loss, seen_norm, rate = self._update(loss, norm)
            record = StepRecord(
                step=self.steps_done,
                loss=seen_loss,
                learning_rate=rate,
                grad_norm=seen_norm,
                clips=len(batch),
                wait_s=fetched_s - step_began_s,
                step_s=clock() - step_began_s,
            )
            self._tell(record)
        return ending

    def state(self) -> TrainState:
        """Where the run stands, after the steps that are done. The tensors are the live ones: save before stepping."""
        rng = {"cpu": torch.get_rng_state()}
        if self._compute.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self._compute.device)
        return TrainState(
            step=self.steps_done,
            model=self._task.model.state_dict(),
            optimizer=self._learning.optimizer.state_dict(),
            data=dict(self._feed.state_after(self.steps_done)),
            rng=rng,
        )

    def load_state(self, state: TrainState) -> None:
        """Go on after the state's step. Raises BadInput when the loader's plan is another."""
        self._feed.load_state_dict(state.data)
        self._task.model.load_state_dict(state.model)
        self._learning.optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(state.rng["cpu"])
        if self._compute.device.type == "cuda" and "cuda" in state.rng:
            torch.cuda.set_rng_state(state.rng["cuda"], self._compute.device)
        self.steps_done = state.step

    def _ending(self, limits: Limits, stops: Stops, *, ran_s: float) -> Ending | None:
        if self.steps_done >= limits.steps:
            return Ending.FINISHED
        if stops.last:
            return Ending.STOPPED
        return Ending.OUT_OF_TIME if limits.max_s is not None and ran_s >= limits.max_s else None

    def _fetch(self, stops: Stops) -> Batch | None:
        """The next batch; None if a stop came while waiting for it."""
        try:
            with stops.interruptible():
                self.last_batch = next(self._feed)
                return self.last_batch
        except Stopped:
            return None

    def _forward(self, batch: Batch) -> Tensor:
        self._task.model.train()
        with self._compute.autocast():
            return self._task.loss(batch)

    def _backward(self, loss: Tensor) -> Tensor:
        self._learning.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        return clip_gradients(self._task.model.parameters(), max_norm=self._learning.clip_norm)

    def _update(self, loss: Tensor, norm: Tensor) -> tuple[float, float, float]:
        rate = self._learning.schedule.at(self.steps_done)
        seen_loss, seen_norm = require_finite(step=self.steps_done, loss=loss, grad_norm=norm)
        set_learning_rate(self._learning.optimizer, rate)
        self._learning.optimizer.step()
        self.steps_done += 1
        return seen_loss, seen_norm, rate

    def _tell(self, record: StepRecord) -> None:
        for told in self.after_step:
            told(record)
