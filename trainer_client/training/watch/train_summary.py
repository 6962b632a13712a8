"""What a run was, in numbers, once it is over: summary.json. It knows steps and the feed's counts, not the task."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from framefeed.errors import StorageFault
from framefeed.new_file import write_whole
from trainer_client.measures.stats import FeedStats
from trainer_client.training.loop import StepRecord

SUMMARY_NAME = "summary.json"


class Summary:
    """Takes every step of this process in; eight bytes a step."""

    def __init__(self) -> None:
        self._losses = array("d")
        self._first_step = self._last_step = self._clips = 0
        self._ran_s = 0.0
        self._steps = self._skipped = 0
        self.scores: dict[str, float] = {}
        """The last evaluation's scores of held-out samples, and the step that they are of."""

    def record(self, record: StepRecord) -> None:
        """Take one step in."""
        if not self._steps:
            self._first_step = record.step
        if not record.skipped:
            self._losses.append(record.loss)
        self._last_step = record.step
        self._steps += 1
        self._skipped += record.skipped
        self._clips += record.clips
        self._ran_s += record.step_s

    @property
    def ran_s(self) -> float:
        """Seconds of the steps so far."""
        return self._ran_s

    def write(
        self, path: Path, stats: FeedStats, *, ending: str, cost: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """Write the file atomically and return what it says, and what the run has cost.

        Losses are means over the first and the last 20th of the steps. Starvation is the share of the steps' time that
        next(loader) was blocked, the start included; `wait_s` says by what: "first_batch" is the start. Raises
        StorageFault if it cannot be written.
        """
        first, last = mean_of_ends(self._losses) if self._losses else (None, None)
        blocked_s = stats.blocked_ns * 1e-9
        body: dict[str, object] = {
            "framefeed_summary": 1,
            "ending": ending,
            "first_step": self._first_step,
            "last_step": self._last_step,
            "steps": self._steps,
            "skipped_steps": self._skipped,
            "clips": self._clips,
            "seconds": self._ran_s,
            "videos_per_s": self._clips / self._ran_s if self._ran_s else 0.0,
            "starvation_percent": 100 * blocked_s / self._ran_s if self._ran_s else 0.0,
            "wait_s": stats.wait_s,
            "loss_first": first,
            "loss_last": last,
            "scores": self.scores,
            "retries": dict(stats.retries),
            "requests": {f"{server} {outcome}": count for (server, outcome), count in stats.requests.items()},
            "servers": dict(stats.servers),
            "read_bytes_per_clip": stats.read_bytes_per_clip,
            "received_bytes": stats.received_bytes,
            "conserved": stats.conserved,
            **(cost or {}),
        }
        try:
            write_whole(path, json.dumps(body, indent=1).encode() + b"\n")
        except OSError as error:
            raise StorageFault(f"summary {path} cannot be written: {error.strerror}") from None
        return body


def mean_of_ends(values: Sequence[float], *, share: float = 0.05) -> tuple[float, float]:
    """Means over the first and the last `share` of the values, at least one each: where a curve came from and went."""
    count = max(round(len(values) * share), 1)
    return sum(values[:count]) / count, sum(values[-count:]) / count
