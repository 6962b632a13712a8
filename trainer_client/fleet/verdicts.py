"""Verdicts: which clips are held bad, by what servers said of them, who is there, and what storage gave others.

It joins the fleet with what was said against each clip; it asks nobody and ends nothing itself.
"""

from __future__ import annotations

from framefeed.errors import FramefeedError, NotHere, StorageFault
from trainer_client.fleet.attempts import Attempt, Wanted
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.poison_detection import Failure, StorageRecord


class Verdicts:
    """Of one feed."""

    def __init__(self, fleet: Fleet, limits: DispatchLimits) -> None:
        self._fleet, self._limits = fleet, limits
        self._storage = StorageRecord()

    def came(self, read_bytes: int, now_s: float) -> None:
        """A clip came, of so many bytes from storage."""
        if read_bytes:
            self._storage.came_through(now_s)

    def failed(self, attempt: Attempt, error: FramefeedError, now_s: float) -> None:
        """A server tried and answered with an error that may be the clip's own."""
        if isinstance(error, NotHere):
            self._fleet.ask_again(attempt.url, now_s)
        self._storage.faults += isinstance(error, StorageFault)
        failure = Failure(url=attempt.url, error=error, sent_s=attempt.sent_s, now_s=now_s)
        attempt.wanted.poison.add(failure, self._storage, storage_s=self._limits.storage_s)

    def on(self, wanted: Wanted, now_s: float) -> FramefeedError | None:
        """The error to end a clip with; None while it is not held bad."""
        poison = wanted.poison
        if poison.is_clean:
            return None
        awaited = [] if poison.since_s is None else self._fleet.awaited(now_s, since_s=poison.since_s)
        return poison.verdict(up=self._fleet.up, awaited=awaited, witnesses=self._limits.witnesses, what=str(wanted))
