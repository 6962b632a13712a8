"""Poison detection: when a clip that servers failed to give is held bad itself. It knows names and errors, no requests.

What should fail everywhere alike (a Permanent error) is believed of `witnesses` different servers, or of all there are:
also of those that are away for a moment. A server that has not got a clip says nothing against it. A worker that died
over a clip may have been killed for another reason, so only many such deaths speak against it; and storage that fails
may come back, so it speaks against a clip only after a long time in which it gave others.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from framefeed.errors import CorruptMedia, FramefeedError, NotHere, Permanent, ServerLost, StorageFault

CRASHES = 5  # workers that may die over one clip


@dataclass(slots=True)
class StorageRecord:
    """What became of reads from storage, of whichever clips: clips `through`, the last one at `through_s`, `faults`."""

    through: int = 0
    through_s: float = float("-inf")
    faults: int = 0

    def came_through(self, now_s: float) -> None:
        """A clip came whose bytes were read from storage."""
        self.through += 1
        self.through_s = now_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A server tried and answered with this error, to a request of `sent_s`."""

    url: str
    error: FramefeedError
    sent_s: float
    now_s: float


@dataclass(slots=True)
class _StorageTrouble:
    """The storage faults of one clip, and how the record stood at the first of them."""

    since_s: float
    through: int
    faults: int  # of others
    own: int = 0


@dataclass(slots=True)
class PoisonDetection:
    """What was said against one clip so far."""

    permanent: dict[str, FramefeedError] = field(default_factory=dict)  # by server, the last one last
    absent: dict[str, FramefeedError] = field(default_factory=dict)  # servers that have not got it
    since_s: float | None = None  # when a server first said either
    crashes: int = 0
    trouble: _StorageTrouble | None = None
    storage: FramefeedError | None = None  # once it has failed for too long

    def add(self, failure: Failure, record: StorageRecord, *, storage_s: float) -> None:
        """One more. Storage may fail for `storage_s`; the record has this fault in it."""
        error = failure.error
        if isinstance(error, Permanent | NotHere):
            said = self.permanent if isinstance(error, Permanent) else self.absent
            said.pop(failure.url, None)
            said[failure.url] = error
            self.since_s = failure.now_s if self.since_s is None else self.since_s
        elif isinstance(error, ServerLost):
            self.crashes += 1
        elif isinstance(error, StorageFault):
            self._storage_failed(failure, record, storage_s)

    def _storage_failed(self, failure: Failure, record: StorageRecord, storage_s: float) -> None:
        """It is the clip's if others came through meanwhile, more than failed, and it was tried again after that."""
        if self.trouble is None:
            self.trouble = _StorageTrouble(failure.now_s, record.through, record.faults - 1)
        trouble = self.trouble
        trouble.own += 1
        others = record.faults - trouble.faults - trouble.own
        came = record.through - trouble.through
        works = came > others and record.through_s < failure.sent_s
        if failure.now_s - trouble.since_s >= storage_s and works:
            self.storage = failure.error

    @property
    def is_clean(self) -> bool:
        """Whether nothing was said against it."""
        return self.since_s is None and not self.crashes and self.storage is None

    @property
    def spoken(self) -> Collection[str]:
        """The servers that need not be asked again: they gave their verdict on it."""
        return self.permanent.keys()

    def verdict(
        self, *, up: Collection[str], awaited: Collection[str], witnesses: int, what: str
    ) -> FramefeedError | None:
        """The error to end the clip with; None while another server that is up, or awaited, may yet give it.

        `what` names it.
        """
        if len(self.permanent) >= witnesses:
            return next(reversed(self.permanent.values()))
        spoken = {**self.absent, **self.permanent}
        if spoken and not awaited and all(url in spoken for url in up):
            last = next(reversed((self.permanent or self.absent).values()))
            return last if self.permanent else Permanent(f"clip of {what}: no server has it; the last one said: {last}")
        if self.crashes >= CRASHES:
            return CorruptMedia(f"clip of {what}: {self.crashes} decode workers died over it")
        return self.storage
