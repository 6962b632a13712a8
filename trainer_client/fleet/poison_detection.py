"""Poison detection: when a clip that servers failed to give is held bad itself. It knows names and errors, no requests.

What should fail everywhere alike (a Permanent error) is believed of `witnesses` different servers, or of all there are.
A worker that died over a clip may have been killed for another reason, so only many such deaths speak against it; and
storage that fails may come back, so only a long time of it does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from framefeed.errors import CorruptMedia, FramefeedError, Permanent, ServerLost, StorageFault

CRASHES = 5  # workers that may die over one clip


@dataclass(slots=True)
class PoisonDetection:
    """What was said against one clip so far."""

    permanent: dict[str, FramefeedError] = field(default_factory=dict)  # by server, the last one last
    crashes: int = 0
    storage_since_s: float | None = None
    storage: FramefeedError | None = None  # once it has failed for too long

    def add(self, url: str, error: FramefeedError, *, now_s: float, storage_s: float) -> None:
        """A server tried and answered with this error; storage may fail for `storage_s`."""
        if isinstance(error, Permanent):
            self.permanent.pop(url, None)
            self.permanent[url] = error
        elif isinstance(error, ServerLost):
            self.crashes += 1
        elif isinstance(error, StorageFault):
            self.storage_since_s = now_s if self.storage_since_s is None else self.storage_since_s
            self.storage = error if now_s - self.storage_since_s >= storage_s else None

    def verdict(self, up: Collection[str], *, witnesses: int, what: str) -> FramefeedError | None:
        """The error to end the clip with; None while another server that is up may yet give it. `what` names it."""
        if self.permanent and (len(self.permanent) >= witnesses or all(url in self.permanent for url in up)):
            return next(reversed(self.permanent.values()))
        if self.crashes >= CRASHES:
            return CorruptMedia(f"clip of {what}: {self.crashes} decode workers died over it")
        return self.storage
