"""For how long a GPU had nothing to do between two steps, measured by events on it, and because of what.

It knows events and the seconds that the training thread has waited, not for whom. An idle GPU is not the same as a
waiting thread: a thread that is a step ahead may wait and the GPU compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from trainer_client.measures.wait import CAUSES

HOST = "host"
"""The training thread itself: it was meeting the other ranks, saving or launching, and not waiting for a batch."""
IDLE_CAUSES = (*CAUSES, HOST)


class TimedEvent(Protocol):
    """A CUDA event with timing."""

    def record(self) -> None: ...

    def elapsed_time(self, end_event: TimedEvent) -> float:
        """Milliseconds from this one to another; both have happened."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IdleSpan:
    """From the end of a step to the begin of the next on the device, and what was waited for meanwhile, in seconds."""

    ended: TimedEvent
    began: TimedEvent
    waited_s: Mapping[str, float]

    def by_cause(self) -> dict[str, float]:
        """Seconds by cause, summing to the span. Only once the step that began is done."""
        return shared_out(self.ended.elapsed_time(self.began) / 1e3, self.waited_s)


class IdleClock:
    """Marks where steps begin and end on a device; nothing waits for it."""

    def __init__(self, make_event: Callable[[], TimedEvent]) -> None:
        self._make_event = make_event
        self._ended: TimedEvent | None = None
        self._before: dict[str, float] = {}

    @classmethod
    def of(cls, device: torch.device) -> IdleClock | None:
        """That of a GPU; None for a CPU, which has no steps beside its own thread's."""
        if device.type != "cuda":
            return None
        return cls(partial(torch.cuda.Event, enable_timing=True))  # type: ignore[arg-type]  # torch types it loosely

    def begin_step(self, waited_s: Mapping[str, float]) -> IdleSpan | None:
        """Call it when a step's batch is on the device's stream. `waited_s`: all waits so far, by cause.

        Gives the span since the step before; None for the first.
        """
        began = self._make_event()
        began.record()
        meanwhile = {cause: total_s - self._before.get(cause, 0.0) for cause, total_s in waited_s.items()}
        self._before = dict(waited_s)
        return None if self._ended is None else IdleSpan(ended=self._ended, began=began, waited_s=meanwhile)

    def pause(self) -> None:
        """Something else was done on the device: what lies between the last step and the next is no idle span."""
        self._ended = None

    def end_step(self) -> None:
        """Call it when all of a step is on the device's stream."""
        self._ended = self._make_event()
        self._ended.record()


def shared_out(idle_s: float, waited_s: Mapping[str, float]) -> dict[str, float]:
    """Idle seconds by cause: in the proportions of what was waited for, and the host's beyond the sum of that."""
    total_s = sum(waited_s.values())
    if total_s <= 0:
        return {HOST: idle_s}
    blamed_s = min(idle_s, total_s)
    shares = {cause: blamed_s * each_s / total_s for cause, each_s in waited_s.items() if each_s > 0}
    return {**shares, HOST: idle_s - blamed_s}
