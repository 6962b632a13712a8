"""Exceptions that come from outside, as a signal's handler raises them: at a chosen instruction, or at any moment."""

from __future__ import annotations

import contextlib
import dis
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

OURS = tuple(str(Path(__file__).parents[1] / name) for name in ("trainer_client", "framefeed"))
_RUNS_HANDLERS = ("CALL", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")


class Interrupt(BaseException):
    """What the handler raises."""


class Interruption:
    """Raises Interrupt before the instruction of our own code that is the `number`-th from when it is entered.

    Of all, or of those alone before which CPython may run a signal's handler: those after calls, at the start of
    functions and in loops. Between a `with` of a lock and its end, for one, it runs none.
    """

    def __init__(self, number: int, *, anywhere: bool = False) -> None:
        self.number, self.count, self._anywhere = number, 0, anywhere
        self.after = ""
        """The instruction that was done last before it was raised."""
        self._last = ""

    @property
    def came(self) -> bool:
        """Whether there were so many."""
        return self.count > self.number

    @property
    def is_real(self) -> bool:
        """Whether CPython may run a signal's handler where it was raised."""
        return self.after.startswith(_RUNS_HANDLERS)

    def __enter__(self) -> Interruption:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.count += self._anywhere or self._last.startswith(_RUNS_HANDLERS)
            if self.count == self.number:
                self.after = self._last
                self.count += 1
                raise Interrupt
            self._last = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        return self._trace


@contextlib.contextmanager
def alarms(*, seed: int, up_to_s: float) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Yields what has Interrupt raised once at some moment from then on, and what has it not raised any more."""
    draws = random.Random(seed)

    def alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, draws.uniform(1e-6, up_to_s))

    def no_alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def handle(number: int, frame: FrameType | None) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handle)
    try:
        yield alarm, no_alarm
    finally:
        no_alarm()
        signal.signal(signal.SIGALRM, before)
