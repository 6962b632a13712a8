"""The prefetcher: batches that are being filled, handed out in strict plan order; no clock, threads or sockets.

It knows nothing of servers: clips are tickets that come filled or failed, in any order. Batches in it are bounded by
their number, so memory is bounded by that number of slots and those that the consumer still holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from framefeed.clip import ClipInfo
from framefeed.errors import FramefeedError
from framefeed.request import ClipRequest
from trainer_client.batch import Batch
from trainer_client.sampler import PlannedBatch
from trainer_client.samples import Sample
from trainer_client.slots import SlotPool
from trainer_client.wait import ClipLife


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchPlan:
    """A batch as it is wanted: its places in the run, their samples and the requests for their clips, row by row."""

    places: PlannedBatch
    samples: tuple[Sample, ...]
    requests: tuple[ClipRequest, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class _Filling:
    plan: BatchPlan
    pixels: npt.NDArray[np.uint8]
    infos: list[ClipInfo | None]
    missing: int
    errors: dict[int, FramefeedError] = field(default_factory=dict)
    last: ClipLife | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A batch, the life of the clip that completed it, and when a later batch was complete (None: none is)."""

    batch: Batch
    last: ClipLife
    later_ready_s: float | None


class Prefetch:
    """Up to `depth_batches` batches. A ticket is step x batch size + row, so tickets grow in plan order."""

    def __init__(self, slots: SlotPool, *, depth_batches: int) -> None:
        self._slots = slots
        self._depth_batches = depth_batches
        self._clips = slots.shape[0]
        self._filling: OrderedDict[int, _Filling] = OrderedDict()

    @property
    def has_room(self) -> bool:
        """Whether another batch may be opened."""
        return len(self._filling) < self._depth_batches

    @property
    def empty(self) -> bool:
        """Whether no batch is open."""
        return not self._filling

    @property
    def held(self) -> int:
        """Clips received for batches that are not delivered yet."""
        return sum(self._clips - batch.missing for batch in self._filling.values())

    def open(self, plan: BatchPlan) -> Sequence[int]:
        """Take a slot for the next batch. Returns the tickets of its rows."""
        assert self.has_room
        self._filling[plan.places.step] = _Filling(
            plan=plan, pixels=self._slots.take(), infos=[None] * self._clips, missing=self._clips
        )
        first = plan.places.step * self._clips
        return range(first, first + self._clips)

    def row(self, ticket: int) -> npt.NDArray[np.uint8]:
        """Where the pixels of a ticket go: one clip of the batch slot."""
        row: npt.NDArray[np.uint8] = self._filling[ticket // self._clips].pixels[ticket % self._clips]
        return row

    def fill(self, ticket: int, info: ClipInfo, life: ClipLife) -> None:
        """The pixels of a ticket lie in its row."""
        batch = self._filling[ticket // self._clips]
        assert batch.infos[ticket % self._clips] is None
        batch.infos[ticket % self._clips] = info
        batch.missing -= 1
        if batch.last is None or life.received_s >= batch.last.received_s:
            batch.last = life

    def fail(self, ticket: int, error: FramefeedError) -> None:
        """The clip of a ticket will never come; take() raises its error when the batch's turn comes."""
        self._filling[ticket // self._clips].errors[ticket % self._clips] = error

    @property
    def ready(self) -> bool:
        """Whether take() has something to say about the next batch."""
        head = next(iter(self._filling.values()), None)
        return head is not None and (not head.missing or bool(head.errors))

    def take(self) -> Delivery | None:
        """The next batch in plan order; None while it is incomplete.

        Raises the FramefeedError of its first failed clip, again at every call: the batch stays where it is, and so
        does the run's state.
        """
        head = next(iter(self._filling.values()), None)
        if head is not None and head.errors:
            raise head.errors[min(head.errors)]
        if head is None or head.missing:
            return None
        self._filling.popitem(last=False)
        assert head.last is not None
        later = [b.last.received_s for b in self._filling.values() if not b.missing and b.last is not None]
        return Delivery(batch=_batch(head), last=head.last, later_ready_s=min(later, default=None))

    def discard(self) -> int:
        """Forget all open batches. Returns how many received clips that throws away."""
        held = self.held
        self._filling.clear()
        return held


def _batch(filled: _Filling) -> Batch:
    places = filled.plan.places
    return Batch(
        step=places.step,
        pixels=filled.pixels,
        positions=places.positions,
        epochs=places.epochs,
        indices=places.indices,
        seeds=places.seeds,
        samples=filled.plan.samples,
        infos=tuple(info for info in filled.infos if info is not None),
    )
