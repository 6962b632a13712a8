"""What a feed is made of; whoever builds one gives it all of this. It knows no thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer_client.feed.prefetch import Prefetch
from trainer_client.feed.stand_ins import StandIns
from trainer_client.fleet.discovery import Source
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.protection import Protection
from trainer_client.measures.stats import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a feed is made of: where its servers come from and how often to look, the decisions, where they are counted,
    how long its thread may be silent, and which servers may be used.
    """

    sources: Sequence[Source]
    look_every_s: float
    fleet: Fleet
    dispatch: Dispatch
    prefetch: Prefetch
    stand_ins: StandIns
    ledger: Ledger
    rank: int
    stall_s: float
    protection: Protection
