"""Learning rate as a pure function of the step; it knows no optimizer and keeps no state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from framefeed.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupCosine:
    """Linear warm-up from `start` to `peak`, then half a cosine down to `end` (Loshchilov & Hutter 2017, eq. 5).

    Raises BadInput if the steps or rates make no such curve.
    """

    peak: float
    warmup_steps: int
    total_steps: int
    start: float = 1e-6
    end: float = 1e-5

    def __post_init__(self) -> None:
        if self.total_steps < 1 or not 0 <= self.warmup_steps <= self.total_steps:
            raise BadInput(
                f"schedule: {self.warmup_steps} warm-up of {self.total_steps} total steps, "
                "wanted total >= 1 and 0 <= warm-up <= total"
            )
        for name in ("start", "end", "peak"):
            rate = getattr(self, name)
            if not 0.0 <= rate < math.inf:
                raise BadInput(f"is {rate}, wanted a finite rate >= 0", of="schedule", field=name)

    @property
    def oddity(self) -> str:
        """What a user should know of the curve: that it does not fall, and why; "" if it does."""
        if self.end < self.peak or self.warmup_steps >= self.total_steps:
            return ""
        behind = " behind its warm-up" if self.warmup_steps else ""
        return (
            f"the learning rate is flat at {self.peak:g}{behind}: --end-lr, {self.end:g} here, is not below the peak; "
            "a lower --end-lr lets it fall"
        )

    def at(self, step: int) -> float:
        """The rate of the optimizer step numbered `step`, 0 … total_steps; the peak is at step `warmup_steps`.

        rate = start + (peak - start) step / W for step < W, of W = warmup_steps and S = total_steps, else
        rate = end + (peak - end) (1 + cos π (step - W) / (S - W)) / 2.
        Step `total_steps` is the end of the curve, one past the last step taken.
        Raises BadInput outside that range: a longer run needs another schedule, not a longer tail in silence.
        """
        if not 0 <= step <= self.total_steps:
            raise BadInput(f"schedule: step is {step}, wanted 0 to {self.total_steps}")
        if step < self.warmup_steps:
            return self.start + (self.peak - self.start) * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        return self.end + (self.peak - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def scale_rate(rate: float, *, batch_clips: int, reference_clips: int = 256) -> float:
    """The linear scaling rule (Goyal et al. 2017, §2.1): a rate stated for `reference_clips`, for a global batch.

    Raises BadInput if a batch size is not positive.
    """
    if batch_clips < 1 or reference_clips < 1:
        raise BadInput(f"learning rate: batches of {batch_clips} and {reference_clips} clips, wanted at least 1")
    return rate * batch_clips / reference_clips
