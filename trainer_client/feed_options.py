"""What a recipe's user chooses about feeding, and the loader it makes; knows no task."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from trainer_client.clip_policy import ClipPolicy
from trainer_client.compute import Compute
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPlan:
    """What a run feeds on: the samples, the clips made of them, and for how many steps in which order."""

    dataset: Dataset
    policy: ClipPolicy
    seed: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """What a recipe's user chooses about feeding."""

    servers: tuple[str, ...]
    """Decode servers, tcp://HOST:PORT each. Any of them may die or come back while one lives."""
    batch_clips: int = 64
    """Clips of one step."""
    prefetch_batches: int = 8
    """Batches made ahead of the step that uses them."""
    prefetch_mib: int = 2048
    """Bound on the memory of batches made ahead, in MiB."""
    attempt_s: float = 10.0
    """A clip is asked of another server after so many seconds."""
    watchdog_s: float = 120.0
    """Without any clip for so many seconds the run ends, and says who waited for what."""
    allow_mixed_decoders: bool = False
    """Let servers with different decoder builds feed one run; its bytes then depend on who served them."""

    def open(self, plan: FeedPlan, *, compute: Compute, registry: CollectorRegistry) -> ClipLoader:
        """A loader that gives the plan's batches; closing it is the caller's. Raises BadInput for unusable options."""
        options = LoaderOptions(
            servers=self.servers,
            batch_clips=self.batch_clips,
            run_seed=plan.seed,
            steps=plan.steps,
            prefetch_batches=self.prefetch_batches,
            prefetch_bytes=self.prefetch_mib << 20,
            attempt_s=self.attempt_s,
            stall_s=self.watchdog_s,
            allow_mixed_decoders=self.allow_mixed_decoders,
        )
        return ClipLoader(plan.dataset, plan.policy, options, registry=registry, allocate=compute.allocate)
