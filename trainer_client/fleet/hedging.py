"""Hedging: when a second server is asked for a clip in flight (Dean and Barroso, "The Tail at Scale", 2013).

Only where it helps: for the clips that the consumer waits for next, within a budget, and at servers that have nothing
else to do; a clip that was overdue or lost an attempt may have one beyond all that. It knows counts, no servers.
"""

from __future__ import annotations

from trainer_client.fleet.attempts import Stage, Wanted
from trainer_client.fleet.balancer import Asked
from trainer_client.measures.stats import Ledger


class Hedging:
    """Decides for one feed; what it allows and is done is counted in the ledger."""

    def __init__(self, *, share: float, head_clips: int, ledger: Ledger) -> None:
        """Up to `share` of all requests, for the `head_clips` oldest tickets."""
        self._share, self._head_clips = share, head_clips
        self._ledger = ledger

    @property
    def on(self) -> bool:
        """Whether there are any."""
        return self._share > 0

    def asks(self, wanted: Wanted, *, oldest: int) -> Asked | None:
        """What is asked of the fleet for a clip in flight; None if it is to have no second attempt now."""
        if not (wanted.owed_hedge or (self._affordable and wanted.ticket < oldest + self._head_clips)):
            return None
        avoid = {*wanted.avoid, *(attempt.url for attempt in wanted.open)}
        return Asked(avoid=avoid, key=wanted.key, clip_bytes=wanted.clip_bytes, spare=not wanted.owed_hedge)

    def made(self, wanted: Wanted) -> None:
        """A second attempt was made."""
        self._ledger.hedged += 1
        wanted.owed_hedge = False

    @property
    def _affordable(self) -> bool:
        return self._ledger.hedged + 1 <= self._share * (self._ledger.requested + 1)


def is_over(wanted: Wanted) -> bool:
    """Whether no attempt of this clip needs a second one any more: it came, or it is asked of two already."""
    return wanted.done or sum(attempt.stage is not Stage.CANCELLED for attempt in wanted.open) > 1
