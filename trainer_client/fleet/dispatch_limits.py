"""How long the dispatch waits for what, how much it asks for, and when it holds a clip to be bad; values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from framefeed.errors import BadInput
from trainer_client.fleet.timeout_estimator import TimeoutLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """How long to wait and how much to ask for.

    A server has the deadline of `timeouts` for a clip, and `grace_s` more to say that it was too slow; then it
    counts as silent and the clip is asked of another. A clip that takes longer than 95 % of them do is asked of a
    second server as well, for up to `hedge_share` of all requests, and one that got no answer is next asked of two at
    once; 0 is never. A clip is held to be bad when `witnesses` servers say so, or all there are, or when its
    storage has failed for `storage_s`. One that every server failed for another reason rests `retry_rest_s`, doubling
    to `retry_rest_max_s`. `stall_s` seconds without any clip while some are wanted end the run, or are only told if
    `stall_ends` is false. `inflight_bytes` bounds the clips asked for and not yet answered. Clips of the same
    `affinity_part_s` seconds of a video are asked of the same server while loads allow.
    """

    timeouts: TimeoutLimits = field(default_factory=TimeoutLimits)
    grace_s: float = 1.0
    hedge_share: float = 0.05
    witnesses: int = 2
    retry_rest_s: float = 0.05
    retry_rest_max_s: float = 5.0
    storage_s: float = 60.0
    stall_s: float = 120.0
    stall_ends: bool = True
    inflight_bytes: int = 256 << 20
    affinity_part_s: float = 15.0

    def __post_init__(self) -> None:
        for name in ("grace_s", "retry_rest_s", "retry_rest_max_s", "stall_s", "storage_s", "affinity_part_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"loader: {name} is {getattr(self, name):g}, wanted more than 0 seconds")
        if not 0 <= self.hedge_share <= 1:
            raise BadInput(f"loader: hedge_share is {self.hedge_share:g}, wanted 0 to 1")
        if self.witnesses < 1:
            raise BadInput(f"loader: {self.witnesses} servers are to call a clip bad, wanted at least 1")
