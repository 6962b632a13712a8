"""Which clips stood in the steps that were not finite: one line of JSON a step, for whoever looks for the cause."""

from __future__ import annotations

import json
from pathlib import Path

from trainer_client.feed.batch import Batch
from trainer_client.training.loop import StepRecord

SKIPPED_NAME = "skipped_steps.jsonl"


class SkippedSteps:
    """Appends to a file, which is made with the first such step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, batch: Batch, record: StepRecord) -> None:
        """Write one step: its number from 0, as `--skip-step` takes it, its numbers, and this rank's clips by name."""
        clips = [
            {"video": s.video, "start_s": s.start_s, "end_s": s.end_s, "position": int(p), "seed": int(seed)}
            for s, p, seed in zip(batch.samples, batch.positions, batch.seeds, strict=True)
        ]
        line = {"step": record.step - 1, "loss": str(record.loss), "grad_norm": str(record.grad_norm), "clips": clips}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
