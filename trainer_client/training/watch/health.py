"""What is watched beside the loss while a run trains: its clips, its features, and what it waits for.

It tells lines, metrics and numbers for curves, and stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from trainer_client.feed.batch import Batch
from trainer_client.training.loop import StepRecord
from trainer_client.training.watch.clip_watch import ClipWatch, Look, shares_of
from trainer_client.training.watch.collapse_alarm import CollapseAlarm
from trainer_client.training.watch.train_metrics import TrainMetrics

_log = logging.getLogger(__name__)


class Health:
    """Of a run in `folder`, within its `with`: `record` takes each step's numbers, `see` its batch."""

    def __init__(
        self,
        folder: Path,
        *,
        sheet_every: int,
        metrics: TrainMetrics,
        waited_s: Callable[[], Mapping[str, float]],
    ) -> None:
        """Clips are looked at every `sheet_every` steps, never for 0; `waited_s` says what was waited for so far."""
        self._clips = ClipWatch(folder, every=sheet_every) if sheet_every else None
        self._metrics, self._waited_s = metrics, waited_s
        self._alarm = CollapseAlarm()
        self._looks: list[Look] = []
        self._stack = ExitStack()

    def __enter__(self) -> Health:
        if self._clips is not None:
            self._stack.enter_context(self._clips)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
        self._count_looks()

    @property
    def waited_s(self) -> Mapping[str, float]:
        """Seconds waited for data so far, by cause."""
        return self._waited_s()

    def see(self, batch: Batch, record: StepRecord) -> None:
        """Take the batch of a step."""
        if self._clips is not None:
            self._clips.see(batch, record)

    def record(self, record: StepRecord) -> None:
        """Take the numbers of a step."""
        if line := self._alarm.add(record.step, record.parts or {}):
            _log.warning("%s", line)
        self._metrics.set_features(self._alarm.means, collapsed=self._alarm.is_raised)
        self._count_looks()

    def take_numbers(self) -> dict[str, float]:
        """For curves: the share of clips with each finding, if some were looked at since, and whether features have
        collapsed, if there are any."""
        looks, self._looks = self._looks, []
        numbers = {f"health/{name}": share for name, share in shares_of(looks).items()}
        return numbers | ({"health/collapsed": float(self._alarm.is_raised)} if self._alarm.means else {})

    def _count_looks(self) -> None:
        for look in [] if self._clips is None else self._clips.take_done():
            self._metrics.count_clips(len(look.clips), look.counts)
            self._looks.append(look)
