"""A thread that kills and stops any process of one box but the box itself, by a seeded schedule. It knows no clips.

Of the fronts one is always left alone, so that somebody serves.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.schedule import Arrival, Fault
from tests.integration.box_of_fronts import BoxOfFronts, children

_TICK_S = 0.02
_SIGNALS = {Fault.KILL: signal.SIGKILL, Fault.STOP: signal.SIGSTOP}


class PartKiller:
    """Strikes until its `struck` is over; `done` counts faults by part and kind."""

    def __init__(self, box: BoxOfFronts, storm: Sequence[Arrival], *, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._box, self._storm = box, storm
        self._rng = random.Random(seed)
        self._stopping = threading.Event()
        self._stopped: list[tuple[float, int]] = []  # until when, and which process

    @contextlib.contextmanager
    def struck(self) -> Iterator[None]:
        """The span in which it strikes; after it nothing is stopped any more."""
        thread = threading.Thread(target=self._run, name="part-killer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(20)
            assert not thread.is_alive()

    def _run(self) -> None:
        began_s, left = time.monotonic(), list(self._storm)
        try:
            while not self._stopping.wait(_TICK_S):
                self._go_on(time.monotonic())
                while left and left[0].at_s <= time.monotonic() - began_s:
                    self._strike(left.pop(0))
        except BaseException as error:
            self.error = error
        finally:
            self._go_on(float("inf"))

    def _go_on(self, now_s: float) -> None:
        for until_s, pid in list(self._stopped):
            if now_s >= until_s:
                self._stopped.remove((until_s, pid))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _strike(self, arrival: Arrival) -> None:
        fronts = children(self._box.process.pid)
        parts = [("worker or gateway", child) for front in fronts for child in children(front)]
        if len(fronts) > 1 and not any(pid in fronts for _, pid in self._stopped) and all(map(children, fronts)):
            parts += [("front", front) for front in fronts] * 2  # as many as there are of their parts
        if not parts:
            return
        part, pid = self._rng.choice(parts)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, _SIGNALS[arrival.fault])
            self.done[f"{part}: {arrival.fault.value}"] += 1
            if arrival.fault is Fault.STOP:
                self._stopped.append((time.monotonic() + arrival.lasts_s, pid))
