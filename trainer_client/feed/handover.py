"""The handing over of batches: what the consumer takes of the prefetcher, and its counts of batches and waits.

It knows no thread and no lock: whoever calls has the feed's. An exception that a signal's handler raises within, at any
moment, changes nothing: what is taken is noted by one assignment, and what follows from that is done by whoever calls
next, and to the same end however often it is begun.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from trainer_client.feed.batch import Batch
from trainer_client.feed.prefetch import Delivery, Prefetch
from trainer_client.measures.stats import Ledger
from trainer_client.measures.wait import ClipLife, Wait, WaitLedger, to_ns


@dataclass(slots=True, kw_only=True, eq=False)
class Handed:
    """A batch that is taken for a place in the run's order, and what the consumer's counts are with it."""

    place: int
    number: int
    batch: Batch
    batches: int
    used: int
    stood_in: int
    waits: WaitLedger
    counted: bool = False


class Handover:
    """Batches from a prefetcher to the one consumer, counted in a ledger."""

    def __init__(self, prefetch: Prefetch, ledger: Ledger) -> None:
        self._prefetch, self._ledger = prefetch, ledger
        self.handed: Handed | None = None
        """What was taken last, until the consumer has given it and sets this to None."""
        self._delivered = False
        self._discarded: int | None = None  # the ledger's count once what is open is thrown away

    @property
    def is_waiting(self) -> bool:
        """Whether the consumer waits for a batch."""
        return self._ledger.waits.since_s is not None

    def begin_wait(self, began_s: float) -> None:
        """The consumer waits from then on, if it does not already."""
        if self._ledger.waits.since_s is None:
            self._ledger.waits.since_s = began_s

    def take(self, place: int) -> bool:
        """Have the batch for a place in `handed`: the one that is there for it, or the next. False if none is ready."""
        if self.handed is None or self.handed.place != place:
            delivery = self._prefetch.peek()
            if delivery is None:
                return False
            self.handed = self._handing(place, delivery)
        return True

    def count(self) -> None:
        """Do what follows from a batch's being taken, if it is not done yet."""
        handed, ledger = self.handed, self._ledger
        if handed is None or handed.counted:
            return
        self._prefetch.release(handed.number)
        ledger.batches, ledger.used, ledger.stood_in = handed.batches, handed.used, handed.stood_in
        ledger.waits = handed.waits
        self._delivered = True
        handed.counted = True

    def count_copy_wait(self, waited_s: float) -> None:
        """Count seconds for which the consumer was blocked until a batch was on its device."""
        waits = self._ledger.waits.copy()
        waits.copied(to_ns(waited_s))
        self._ledger.waits = waits

    def end_wait(self, last: ClipLife | None = None, later_ready_s: float | None = None) -> None:
        """Count the wait that is over, if there is one."""
        if self.is_waiting:
            waits = self._ledger.waits.copy()
            waits.add(self.wait(last, later_ready_s))
            self._ledger.waits = waits

    def wait(self, life: ClipLife | None, later_ready_s: float | None) -> Wait:
        """The wait so far, for a clip of this life; the consumer must be waiting."""
        since_s = self._ledger.waits.since_s
        assert since_s is not None
        return Wait(
            began_ns=to_ns(since_s),
            ended_ns=to_ns(time.monotonic()),
            life=life,
            later_ready_ns=None if later_ready_s is None else to_ns(later_ready_s),
            first_batch=not self._delivered,
        )

    def discard(self) -> None:
        """Throw away what was not taken. Idempotent."""
        if not self._prefetch.empty:
            if self._discarded is None:
                self._discarded = self._ledger.discarded + self._prefetch.held
            self._ledger.discarded = self._discarded
            self._prefetch.discard()

    def _handing(self, place: int, delivery: Delivery) -> Handed:
        waits = self._ledger.waits.copy()
        waits.add(self.wait(delivery.last, delivery.later_ready_s))
        return Handed(
            place=place,
            number=delivery.number,
            batch=delivery.batch,
            batches=self._ledger.batches + 1,
            used=self._ledger.used + len(delivery.batch),
            stood_in=self._ledger.stood_in + len(delivery.batch.stand_ins),
            waits=waits,
        )
