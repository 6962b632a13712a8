"""The killer: a thread that does to boxes what a storm's schedule says, and brings them back. It knows no clips.

The promise that it tests holds while one server lives, so a fault that would take the last one waits until another
serves again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from tests.chaos.box import Box
from tests.chaos.schedule import PROCESS_FAULTS, Arrival, Fault

_TICK_S = 0.02


class Killer:
    """Strikes within its `with`; after it every box serves again or is starting. `error` is what went wrong with it."""

    def __init__(self, boxes: Sequence[Box], storm: Sequence[Arrival]) -> None:
        self.done: Counter[Fault] = Counter()  # of processes; a proxy counts its own
        self.ran_s = 0.0
        self.error: BaseException | None = None
        self._boxes = boxes
        self._storm = list(reversed(storm))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-killer", daemon=True)

    def __enter__(self) -> Killer:
        self._began_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self.ran_s = time.monotonic() - self._began_s
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_TICK_S):
                for box in self._boxes:
                    box.tend(time.monotonic())
                self._strike_due(time.monotonic() - self._began_s)
            for box in self._boxes:
                box.tend(float("inf"))
        except BaseException as error:
            self.error = error

    def _strike_due(self, ran_s: float) -> None:
        while self._storm and self._storm[-1].at_s <= ran_s:
            arrival = self._storm[-1]
            if not self._strike(arrival):
                return
            self._storm.pop()

    def _strike(self, arrival: Arrival) -> bool:
        """Do it, to the next box that serves if the one meant does not; False if it must wait."""
        if arrival.fault not in PROCESS_FAULTS:
            proxy = self._boxes[arrival.server].proxy
            assert proxy is not None, "a fault of the wire needs a proxy"
            proxy.order(arrival.fault, lasts_s=arrival.lasts_s)
            return True
        in_turn = (*self._boxes[arrival.server :], *self._boxes[: arrival.server])
        serving = [box for box in in_turn if box.serving]
        if len(serving) < 2:
            return False
        self.done[arrival.fault] += 1
        serving[0].strike(arrival.fault, until_s=time.monotonic() + arrival.lasts_s)
        return True
