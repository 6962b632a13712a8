"""The prefetcher: batches that are being filled, handed out in the order opened; no clock, threads or sockets.

Within a window, a batch that is ready may overtake those that are not: it leaves before at most `window` - 1 of those
opened before it, and none is overtaken by one opened `window` or more after it. It knows nothing of servers: clips are
tickets that come filled or failed, in any order. Batches in it are bounded by their number, so memory is bounded by
that number of slots and those that the consumer still holds.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefeed.clip import ClipInfo
from framefeed.errors import FramefeedError
from framefeed.request import ClipRequest
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.feed.sampler import PlannedBatch
from trainer_client.feed.slots import SlotPool
from trainer_client.feed.stand_ins import Place, StandIn, place_of
from trainer_client.measures.wait import ClipLife
from trainer_client.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchPlan:
    """A batch as it is wanted: its places in the run, their samples and the requests for their clips, row by row, made
    by `policy`.

    `stand_ins` are known already, by row; `samples` and `requests` are theirs there, `places` those of the plan.
    """

    places: PlannedBatch
    samples: tuple[Sample, ...]
    requests: tuple[ClipRequest, ...]
    policy: ClipPolicy
    stand_ins: Mapping[int, StandIn] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class _Filling:
    plan: BatchPlan
    pixels: npt.NDArray[np.uint8]
    infos: list[ClipInfo | None]
    missing: int
    stand_ins: dict[int, StandIn]
    errors: dict[int, FramefeedError] = field(default_factory=dict)
    last: ClipLife | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A batch and its number, the life of the clip that completed it, and when a later batch was complete (None: none
    is).
    """

    number: int
    batch: Batch
    last: ClipLife
    later_ready_s: float | None


class Refill(Protocol):
    """Who finds another sample for a place whose clip failed; raises what is to be raised at its batch instead."""

    def __call__(self, place: Place, before: StandIn | None, error: FramefeedError) -> StandIn: ...


class Prefetch:
    """Up to `depth_batches` batches. Tickets grow in the order in which batches are opened, then by row."""

    def __init__(self, slots: SlotPool, *, batch_clips: int, depth_batches: int, window_batches: int = 1) -> None:
        self._slots = slots
        self._depth_batches = depth_batches
        self._window = window_batches
        self._clips = batch_clips
        self._opened = 0
        self._filling: OrderedDict[int, _Filling] = OrderedDict()  # by number, counted as they are opened

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
        self._filling[self._opened] = _Filling(
            plan=plan,
            pixels=self._slots.take((self._clips, *plan.policy.shape)),
            infos=[None] * self._clips,
            missing=self._clips,
            stand_ins=dict(plan.stand_ins),
        )
        first = self._opened * self._clips
        self._opened += 1
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
        """The clip of a ticket will never come; peek() raises its error when the batch's turn comes."""
        self._filling[ticket // self._clips].errors[ticket % self._clips] = error

    def stand_in(self, ticket: int, refill: Refill, error: FramefeedError) -> ClipRequest | None:
        """The clip of a ticket will never come. Returns which one the same ticket is for now, None if it failed."""
        batch, row = self._filling[ticket // self._clips], ticket % self._clips
        place = place_of(batch.plan.places, row)
        try:
            found = batch.stand_ins[row] = refill(place, batch.stand_ins.get(row), error)
        except FramefeedError as final:
            self.fail(ticket, final)
            return None
        return batch.plan.policy.request(found.sample, found.seed)

    @property
    def ready(self) -> bool:
        """Whether peek() has something to say."""
        return self._next() is not None or self._error() is not None

    def peek(self) -> Delivery | None:
        """The next batch: the first complete one within the window; None while there is none. It stays until release().

        Raises the FramefeedError of the first failed clip of the oldest batch when no other may overtake it, again at
        every call: the batch stays where it is, and so does the run's state.
        """
        number = self._next()
        if number is None:
            error = self._error()
            if error is not None:
                raise copy.copy(error)  # its own would come to hold the frames of whoever called, and all in them
            return None
        complete = self._filling[number]
        assert complete.last is not None
        return Delivery(number=number, batch=_batch(complete), last=complete.last, later_ready_s=self.later_ready_s)

    def release(self, number: int) -> None:
        """The batch of this number is handed over: it is held no more. Idempotent."""
        self._filling.pop(number, None)

    @property
    def later_ready_s(self) -> float | None:
        """When a batch became complete that may not be delivered yet, because of those before it; None: none is."""
        end = next(iter(self._filling), 0) + self._window
        later = [b.last.received_s for n, b in self._filling.items() if n >= end and not b.missing and b.last]
        return min(later, default=None)

    @property
    def missing(self) -> list[int]:
        """Tickets of the oldest batch whose clips may still come."""
        number, oldest = next(iter(self._filling.items()), (0, None))
        if oldest is None:
            return []
        rows = (row for row, info in enumerate(oldest.infos) if info is None and row not in oldest.errors)
        return [number * self._clips + row for row in rows]

    @property
    def ready_last(self) -> ClipLife | None:
        """The life of the clip that completed the batch that peek() would return; None while there is none."""
        number = self._next()
        return None if number is None else self._filling[number].last

    @property
    def limit_clips(self) -> int:
        """How many clips all its batches have together."""
        return self._depth_batches * self._clips

    def _next(self) -> int | None:
        end = next(iter(self._filling), 0) + self._window
        return next(
            (n for n, batch in islice(self._filling.items(), self._window) if n < end and not batch.missing), None
        )

    def _error(self) -> FramefeedError | None:
        oldest = next(iter(self._filling.values()), None)
        return oldest.errors[min(oldest.errors)] if oldest is not None and oldest.errors else None

    def discard(self) -> None:
        """Forget all open batches."""
        self._filling.clear()


def _batch(filled: _Filling) -> Batch:
    places, samples = filled.plan.places, list(filled.plan.samples)
    indices, seeds = places.indices.copy(), places.seeds.copy()
    for row, stand_in in filled.stand_ins.items():
        indices[row], seeds[row], samples[row] = stand_in.index, stand_in.seed, stand_in.sample
    return Batch(
        step=places.step,
        pixels=filled.pixels,
        positions=places.positions,
        epochs=places.epochs,
        indices=indices,
        seeds=seeds,
        samples=tuple(samples),
        infos=tuple(info for info in filled.infos if info is not None),
        stand_ins=tuple(stand_in for _, stand_in in sorted(filled.stand_ins.items())),
    )
