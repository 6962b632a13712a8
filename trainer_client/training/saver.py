"""When a run saves, and what all its ranks do for it: rank 0 decides, every rank writes its part, rank 0 commits.

Training goes on meanwhile: it stands for the copy of the state alone. A checkpoint that is due while the one before is
still on its way to storage comes as soon as that is there. It knows no files and no model.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic

from framefeed.errors import BadInput, StorageFault
from trainer_client.training.best_score import BestScore, Metric, best_of
from trainer_client.training.checkpoints import Checkpoints
from trainer_client.training.loop import StepRecord, TrainLoop
from trainer_client.training.meeting import Agreed, Asks
from trainer_client.training.part_writer import Background, Staging, part_writing
from trainer_client.training.tasks.task import InputsT

_STORAGE_S = 600.0  # that the end of a run waits for storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """After every so many steps, and every so many seconds if that is given, by the clock of rank 0."""

    steps: int
    seconds: float | None = None

    def is_due(self, step: int, *, saved_step: int, since_s: float) -> bool:
        """Whether to save after `step`, with the last checkpoint after `saved_step` and begun so long ago. Pure."""
        if step == saved_step:
            return False
        return step // self.steps > saved_step // self.steps or (self.seconds is not None and since_s >= self.seconds)


class Saver(Generic[InputsT]):
    """Saves a loop's state when it is due, and never the same step twice. Every rank has one."""

    def __init__(
        self,
        loop: TrainLoop[InputsT],
        checkpoints: Checkpoints,
        rhythm: Rhythm,
        *,
        metric: Metric | None = None,
        best: BestScore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`best` is the best score so far by `metric`, whose checkpoint stays."""
        self._loop, self._checkpoints, self._rhythm = loop, checkpoints, rhythm
        self._metric, self._best, self._clock = metric, best, clock
        self._staging = Staging(loop.ranks)
        self._saved_step, self._saved_s = loop.steps_done, clock()
        self._writing: Background | None = None  # this rank's part; all ranks begin and end it at the same meetings
        self._committing: Background | None = None
        self._scores: dict[str, list[float]] = defaultdict(list)
        self.stalled_s = 0.0
        """For how long the last save has kept training waiting."""

    def record(self, record: StepRecord) -> None:
        """Take one step's numbers into the scores of the next checkpoint, which are means.

        Raises BadInput, at the first step, for a metric that is none of them.
        """
        if self._metric is not None and not self._metric.is_of_held_out and not record.skipped:
            values = {"loss": record.loss, **(record.parts or {})}
            if self._metric.name not in values:
                raise _unknown(self._metric, values)
            for name, value in values.items():
                self._scores[name].append(value)

    def keep_best(self, step: int, scores: Mapping[str, float], *, of: str) -> None:
        """Take in an evaluation of the weights as they are now, after `step` steps; the best so far are saved at once.

        First weights are nobody's checkpoint. All ranks call it alike; blocks while an earlier save is on its way.
        Raises BadInput for a metric that is none of the scores, StorageFault, RankLost.
        """
        if self._metric is None or not self._metric.is_of_held_out or not step:
            return
        if self._metric.name not in scores:
            raise _unknown(self._metric, scores)
        best = best_of(self._best, self._metric, value=scores[self._metric.name], step=step, of=of)
        if best is not None and best.step == step:
            self._best = best
            self._settle()
            self._begin()

    def asks(self, step: int) -> Asks:
        """What this rank says of saving before the step after `step`. Raises StorageFault if a write has failed."""
        written = self._writing is not None and self._writing.done()
        if self._committing is not None and self._committing.done():
            self._committing = None
        free = self._writing is None and self._committing is None
        since_s = self._clock() - self._saved_s
        due = self._rhythm.is_due(step, saved_step=self._saved_step, since_s=since_s)
        return Asks(save=self._loop.ranks.rank == 0 and free and due, written=written)

    def heed(self, agreed: Agreed) -> None:
        """Do what all ranks have agreed on."""
        if agreed.written:
            self._commit()
        if agreed.save:
            self._begin()

    def finish(self) -> None:
        """Save where the loop stands, and return when that is on storage: the end of a run, on every rank alike.

        Raises StorageFault if it is not within 600 s, RankLost if another rank does not come so far.
        """
        self._settle()
        if self._loop.steps_done != self._saved_step:
            self._begin()
            self._settle()

    def _begin(self) -> None:
        began_s, state, ranks = self._clock(), self._loop.state(), self._loop.ranks
        self._best = self._scored(state.step)
        pieces = self._staging.copy(state.tensors)
        what = f"checkpoint {self._checkpoints.folder}, after step {state.step}: part {ranks.rank}"
        folder = self._checkpoints.open_hidden(state.step)
        self._writing = part_writing(folder, pieces, rank=ranks.rank, data=state.data, what=what)
        self._saved_step, self._saved_s = state.step, self._clock()
        self.stalled_s = self._saved_s - began_s

    def _commit(self) -> None:
        self._writing = None
        if self._loop.ranks.rank == 0:
            step, world, best = self._saved_step, self._loop.ranks.world, self._best

            def commit() -> None:
                self._checkpoints.commit(step, world=world, best=best)

            self._committing = Background(commit, what=f"checkpoint after step {step}")

    def _settle(self) -> None:
        if self._writing is not None:
            _wait(self._writing)
            if not self._loop.meeting.meet(Asks(written=True)).written:
                raise StorageFault(f"checkpoint after step {self._saved_step}: not all ranks have written it")
            self._commit()
        if self._committing is not None:
            _wait(self._committing)
            self._committing = None

    def _scored(self, step: int) -> BestScore | None:
        scores, self._scores = self._scores, defaultdict(list)
        if self._metric is None or not scores:
            return self._best
        if self._metric.name not in scores:
            raise _unknown(self._metric, scores)
        values = scores[self._metric.name]
        return best_of(self._best, self._metric, value=sum(values) / len(values), step=step)


def _unknown(metric: Metric, scores: Iterable[str]) -> BadInput:
    return BadInput(f"--keep-best names {metric.name}, wanted one of {', '.join(sorted(scores))}")


def _wait(work: Background) -> None:
    if not work.done(wait_s=_STORAGE_S):
        raise StorageFault(f"a checkpoint is not on storage within {_STORAGE_S:.0f} s")
