"""What a batch was and what it cost, as one line of a log; it knows no servers and no faults."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time

from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader

_STAGES = ("read", "decode", "scale")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A batch in the log: what it was, how long it was waited for, the longest decode in it, and the longest pause that
    the machine put this process to since the batch before.
    """

    step: int
    positions: list[int]
    indices: list[int]
    sha256: str
    wait_s: float
    decode_s: float
    pause_s: float

    @property
    def identity(self) -> tuple[int, list[int], list[int], str]:
        """What must not depend on what happened to the servers."""
        return self.step, self.positions, self.indices, self.sha256


def line_of(batch: Batch, *, wait_s: float = 0.0, pause_s: float = 0.0) -> Line:
    """The log's line of a batch."""
    return Line(
        step=batch.step,
        positions=batch.positions.tolist(),
        indices=batch.indices.tolist(),
        sha256=hashlib.sha256(batch.pixels.tobytes()).hexdigest(),
        wait_s=wait_s,
        decode_s=max(sum(info.stage_s.get(stage, 0.0) for stage in _STAGES) for info in batch.infos),
        pause_s=pause_s,
    )


class Pauses:
    """A thread that wants to run every 10 ms and notes by how much it was late: a busy machine's part of any wait."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        threading.Thread(target=self._run, name="pauses", daemon=True).start()

    def take_s(self) -> float:
        """The longest pause since the last call."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s

    def _run(self) -> None:
        while True:
            due_s = time.monotonic() + 0.01
            time.sleep(0.01)
            self._longest_s = max(self._longest_s, time.monotonic() - due_s)


def take(run: ClipLoader, count: int, pauses: Pauses) -> list[Line]:
    """The next batches, and how long each was waited for."""
    lines = []
    for _ in range(count):
        pauses.take_s()
        began_s = time.monotonic()
        batch = next(run)
        lines.append(line_of(batch, wait_s=time.monotonic() - began_s, pause_s=pauses.take_s()))
    return lines
