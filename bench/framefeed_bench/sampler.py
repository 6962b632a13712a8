"""`framefeed bench sampler`: what planning costs where one epoch of a long run ends and the next begins.

Nothing is fetched: the product's own sampler plans each rank's batches, one process for all ranks. First the ranks'
batches are proved to be one process's, without a sample used twice in an epoch. It knows no servers.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from framefeed.errors import BadInput, FramefeedError
from framefeed_bench.machine import provenance
from framefeed_bench.tables import sampler_table
from trainer_client.feed.sampler import Sampler, Share

_RUN_SEED = 1


@dataclass(frozen=True, kw_only=True)
class SamplerBench:
    """Every rank's batches over the end of the first epoch."""

    samples: int = 100_000_000
    """Samples of an epoch."""
    batch_clips: int = 64
    """Clips of a rank's batch."""
    ranks: int = 8
    """Ranks that share each step."""
    steps: int = 1000
    """Steps that are planned, half of them before the boundary."""
    out: Path = Path("bench/results/sampler.json")
    """Where the result is written."""

    def run(self) -> None:
        """Measure, write and print. Raises FramefeedError if the ranks' batches are not the run's."""
        boundary = self.samples // (self.batch_clips * self.ranks)
        if self.steps < 2 or boundary < self.steps // 2:
            raise BadInput(f"--steps is {self.steps}, wanted 2 to twice the {boundary} of an epoch")
        first = boundary - self.steps // 2
        samplers = [self._sampler(rank, self.ranks) for rank in range(self.ranks)]
        self._prove(samplers, first)
        result: dict[str, Any] = {
            **provenance(),
            "samples": self.samples,
            "batch_clips": self.batch_clips,
            "ranks": self.ranks,
            "steps": self.steps,
            **_times(samplers, first, self.steps),
            **_memory(samplers, first, self.steps),
        }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        Console().print(sampler_table(result))

    def _sampler(self, rank: int, ranks: int) -> Sampler:
        share = Share(batch_clips=self.batch_clips * self.ranks // ranks, rank=rank, world_size=ranks)
        return Sampler(samples=self.samples, run_seed=_RUN_SEED, share=share)

    def _prove(self, samplers: list[Sampler], first: int) -> None:
        alone, used = self._sampler(0, 1), []
        for step in range(first, first + self.steps):
            whole, shares = alone.batch(step), [sampler.batch(step) for sampler in samplers]
            for name in ("epochs", "indices", "seeds"):
                if not np.array_equal(getattr(whole, name), np.concatenate([getattr(share, name) for share in shares])):
                    raise FramefeedError(f"bench: {name} of step {step} differ between 1 and {self.ranks} ranks")
            used.append(np.stack([whole.epochs, whole.indices]))
        pairs = np.concatenate(used, axis=1)
        if len(np.unique(pairs, axis=1).T) != len(pairs.T) or len(np.unique(pairs[0])) < 2:
            raise FramefeedError("bench: a sample is used twice in an epoch, or no epoch ended")


def _times(samplers: list[Sampler], first: int, steps: int) -> dict[str, float]:
    took_s = []
    gc.collect()
    for step in range(first, first + steps):
        for sampler in samplers:
            began_s = time.perf_counter()
            sampler.batch(step)
            took_s.append(time.perf_counter() - began_s)
    return {
        "median_ms": round(1e3 * statistics.median(took_s), 3),
        "slowest_ms": round(1e3 * max(took_s), 3),
    }


def _memory(samplers: list[Sampler], first: int, steps: int) -> dict[str, int]:
    """Bytes of Python's and NumPy's memory that one pass needs at its height, and that are left of it."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for step in range(first, first + steps):
            for sampler in samplers:
                sampler.batch(step)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return {"peak_bytes": peak - before, "grown_bytes": after - before}
