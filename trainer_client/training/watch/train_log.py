"""What a run says while it trains: a bar or lines on the terminal, and curves; knows steps, not tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer_client.training.loop import StepRecord
from trainer_client.training.watch.curves import Curves

_NUMBERS = ("loss", "learning_rate", "grad_norm", "clips_per_s", "wait_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Some steps taken together, up to `step`: means, clips a second, and the share of the time spent waiting."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    clips_per_s: float
    wait_share: float
    parts: Mapping[str, float] = field(default_factory=dict)
    wait_shares: Mapping[str, float] = field(default_factory=dict)
    """Of the time, by what was waited for."""

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}  lr {self.learning_rate:.2e}  norm {self.grad_norm:.2f}  "
            f"{self.clips_per_s:.1f} clips/s  waiting {self.wait_share:.0%}{self._causes}"
        )

    @property
    def _causes(self) -> str:
        """The two causes that took most, of those that took 1 % or more."""
        largest = sorted(self.wait_shares.items(), key=lambda item: -item[1])[:2]
        told = ", ".join(f"{cause} {share:.0%}" for cause, share in largest if share >= 0.01)
        return f" ({told})" if told else ""


def interval_of(records: list[StepRecord], waited_s: Mapping[str, float] | None = None) -> Interval:
    """The interval that these steps make, at least one, in which so long was waited for each cause. Loss and norm are
    of those that moved weights, if any did.
    """
    moved = [record for record in records if not record.skipped] or records
    total_s = sum(record.step_s for record in records) or 1e-9
    return Interval(
        step=records[-1].step,
        loss=sum(record.loss for record in moved) / len(moved),
        learning_rate=records[-1].learning_rate,
        grad_norm=sum(record.grad_norm for record in moved) / len(moved),
        clips_per_s=sum(record.clips for record in records) / total_s,
        wait_share=sum(record.wait_s for record in records) / total_s,
        parts={
            name: sum((one.parts or {}).get(name, 0.0) for one in moved) / len(moved) for name in moved[0].parts or ()
        },
        wait_shares={cause: spent_s / total_s for cause, spent_s in (waited_s or {}).items()},
    )


class Beside(Protocol):
    """What is told beside the steps' own numbers: seconds waited for data so far, by cause, and numbers by name."""

    @property
    def waited_s(self) -> Mapping[str, float]: ...

    def take_numbers(self) -> Mapping[str, float]:
        """Those since this was last called."""
        ...


class TrainLog:
    """Speaks every `every` steps. On a terminal it is a bar, else a line; `curves` get the numbers."""

    def __init__(
        self,
        curves: Curves,
        *,
        total_steps: int,
        every: int,
        first_step: int,
        console: Console,
        beside: Beside | None = None,
    ) -> None:
        self._every = every
        self._total_steps = total_steps
        self._records: list[StepRecord] = []
        self._console = console
        self._curves, self._beside = curves, beside
        self._waited_s: Mapping[str, float] = {}
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total_steps, completed=first_step, now="waiting for the first batch")

    def record(self, record: StepRecord) -> None:
        """Take one step in, and speak if it is time."""
        self._records.append(record)
        if record.step % self._every == 0 or record.step == self._total_steps:
            self._speak()

    def __enter__(self) -> TrainLog:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._records:
            self._speak()
        self._bar.stop()

    def _speak(self) -> None:
        interval = interval_of(self._records, self._waited())
        self._records.clear()
        values = {name: getattr(interval, name) for name in _NUMBERS} | dict(interval.parts)
        told = {f"train/{name}": value for name, value in values.items()}
        told |= {f"wait/{cause}": share for cause, share in interval.wait_shares.items()}
        told |= {} if self._beside is None else self._beside.take_numbers()
        self._curves.add(told, step=interval.step)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=interval.step, now=str(interval))
        else:
            line = f"step {interval.step}/{self._total_steps}  {interval}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _waited(self) -> dict[str, float]:
        """Seconds waited since this was last asked, by cause."""
        before, self._waited_s = self._waited_s, {} if self._beside is None else self._beside.waited_s
        return {cause: total_s - before.get(cause, 0.0) for cause, total_s in self._waited_s.items()}
