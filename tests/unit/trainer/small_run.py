"""A run small enough for unit tests: a linear task, a feed of made batches and a clock that is told the time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box
from trainer_client.feed.batch import Batch
from trainer_client.samples import Sample
from trainer_client.training.average import Average
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.learning import LearningOptions
from trainer_client.training.loop import TrainLoop
from trainer_client.training.ranks import Ranks
from trainer_client.training.step import Run
from trainer_client.training.tasks.task import ClipInputs, Losses

CPU = ComputeOptions(device="cpu", precision="fp32").open()
BATCH = 3


def make_batch(step: int, *, clips: int = BATCH, frames: int = 8, side_px: int = 64) -> Batch:
    """Batch `step` of a run: random pixels that follow from the step."""
    rng = np.random.default_rng(step)
    colour = Colour(matrix="bt709")
    box = Box(x_px=0, y_px=0, width_px=64, height_px=64)
    info = ClipInfo(
        pts_s=tuple(i / 10 for i in range(frames)), box=box, flipped=False, colour=colour, read_bytes=1, fed_packets=1
    )
    return Batch(
        step=step,
        pixels=rng.integers(16, 235, (clips, frames, side_px * 3 // 2, side_px), dtype=np.uint8),
        positions=np.arange(clips),
        epochs=np.zeros(clips, np.int64),
        indices=np.arange(clips),
        seeds=rng.integers(0, 2**63, clips).astype(np.uint64),
        samples=tuple(Sample(video=f"v{i}", start_s=0.0, end_s=1.0) for i in range(clips)),
        infos=(info,) * clips,
    )


class MadeFeed:
    """Batches 0, 1, 2…; `before(step)` is called before each is given, and those of `late` have to be waited for."""

    def __init__(self, before: Callable[[int], None] = lambda step: None, *, late: Collection[int] = ()) -> None:
        self.step = 0
        self._before, self._late = before, late
        self.waited_s = dict[str, float]()

    @property
    def is_ready(self) -> bool:
        return self.step not in self._late

    def count_copy_wait(self, waited_s: float) -> None:
        self.waited_s["copy"] = self.waited_s.get("copy", 0.0) + waited_s

    def __next__(self) -> Batch:
        self._before(self.step)
        self.step += 1
        return make_batch(self.step - 1, frames=2, side_px=4)

    def state_after(self, steps: int) -> dict[str, int | str | None]:
        return {"position": steps * BATCH, "decoder_fingerprint": None}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        position = state["position"]
        assert isinstance(position, int)
        self.step = position // BATCH


class LinearTask:
    """Predicts a clip's mean from its pixels; drops some, so that random states matter."""

    coupled = False

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model: nn.Module = nn.Sequential(nn.Dropout(0.2), nn.Linear(48, 8), nn.GELU(), nn.Linear(8, 1))
        self.trunk = self.model
        self.seen: list[int] = []
        self.scale = 1.0

    def on_host(self, batch: Batch) -> dict[str, Tensor]:
        return {}

    def prepare(self, batch: DeviceBatch) -> ClipInputs:
        self.seen.append(batch.batch.step)
        return ClipInputs(x_BCTYX=batch.pixels.flatten(1).float() / 255, seeds_B=batch.seeds_B)

    def rows(self, x: ClipInputs) -> Tensor:
        rows: Tensor = (self.trunk(x.x_BCTYX)[:, 0] - x.x_BCTYX.mean(1)) ** 2
        return rows

    def loss(self, rows: Tensor, x: ClipInputs, ranks: Ranks) -> Losses:
        return Losses(total=rows.mean() * self.scale)

    def after_step(self, step: int) -> None:
        pass


class NoStops:
    """Nobody asks the run to stop, unless a test sets `last`."""

    last = ""

    def interruptible(self) -> AbstractContextManager[None]:
        return self._nothing()

    @contextmanager
    def _nothing(self) -> Iterator[None]:
        yield


def make_loop(*, steps: int, feed: MadeFeed | None = None, task: LinearTask | None = None) -> TrainLoop[ClipInputs]:
    """A loop over a made feed whose schedule spans `steps`."""
    task = task or LinearTask()
    learning = LearningOptions(lr=1e-2).build(task.model, steps=steps, batch_clips=BATCH)
    average = Average(task.model, decay=0.0)
    run = Run(task=task, learning=learning, passes=CPU.passes, average=average, seed=0)
    return TrainLoop(run, feed or MadeFeed(), device=CPU.device)
