"""How long the dispatch waits for what, how much it asks for, and when it holds a clip to be bad; values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from framefeed.errors import BadInput
from framefeed.wire import WorkClass
from trainer_client.fleet.timeout_estimator import TimeoutLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """How long to wait and how much to ask for.

    An attempt that takes longer than the deadline of `timeouts` has a second server asked for its clip, and its own
    whether it lives: if that says nothing for `grace_s` it is silent, and the attempt lost. From a server that lives a
    clip may take `attempt_s`; then it is cancelled. Servers are told `pause_s` more than that: so long the client
    itself may be stopped without anything being decoded in vain.

    A clip of the oldest `head_clips` that takes longer than 95 % do is asked of a second server as well, of one with
    nothing else to do, for up to `hedge_share` of all requests; 0 is never, also for those that are overdue or lost.

    A clip is held to be bad when `witnesses` servers say so, or all there are and may soon be back; or when its storage
    has failed for `storage_s`, others having come through meanwhile. One that every server failed for another reason
    rests `retry_rest_s`, doubling to `retry_rest_max_s`.

    `stall_s` seconds without any clip while some are wanted end the run, or are only told if `stall_ends` is false.
    `inflight_bytes` bounds the clips asked for and not yet answered. Clips of the same `affinity_part_s` seconds of a
    video are asked of the same server while loads allow. Servers are told that requests are of `run` and `work_class`.
    """

    timeouts: TimeoutLimits = field(default_factory=TimeoutLimits)
    grace_s: float = 1.0
    pause_s: float = 10.0
    hedge_share: float = 0.05
    head_clips: int = 1 << 30
    witnesses: int = 2
    retry_rest_s: float = 0.05
    retry_rest_max_s: float = 5.0
    storage_s: float = 60.0
    stall_s: float = 120.0
    stall_ends: bool = True
    inflight_bytes: int = 256 << 20
    affinity_part_s: float = 15.0
    run: str = ""
    work_class: WorkClass = "train"

    def __post_init__(self) -> None:
        for name in ("grace_s", "retry_rest_s", "retry_rest_max_s", "stall_s", "storage_s", "affinity_part_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"is {getattr(self, name):g}, wanted more than 0 seconds", of="loader", field=name)
        if not self.pause_s >= 0:
            raise BadInput(f"is {self.pause_s:g}, wanted at least 0 seconds", of="loader", field="pause_s")
        if not 0 <= self.hedge_share <= 1:
            raise BadInput(f"is {self.hedge_share:g}, wanted 0 to 1", of="loader", field="hedge_share")
        if self.witnesses < 1:
            raise BadInput(f"loader: {self.witnesses} servers are to call a clip bad, wanted at least 1")

    @property
    def told_deadline_s(self) -> float:
        """The deadline that a server is told: the client gives up, and says so, before it is over."""
        return self.timeouts.attempt_s + self.grace_s + self.pause_s
