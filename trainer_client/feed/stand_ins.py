"""Stand-ins: which sample takes the place of one that no server could give, and when the run ends instead.

All follows from the clip's seed, which is f(run seed, epoch, index), and the number of the draw, so every rank, every
restart and a replay choose alike. It knows neither servers nor batches; nothing stands in without being recorded.

raise: the run ends. replace: another sample stands in at this place only; the next epoch tries the planned one anew.
skip: the sample is dropped for the rest of the run; whenever its turn comes, another stands in without asking for it.
Batches keep their shape and ranks their steps under all three.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from framefeed.draws import SPARE, draw_below, draw_u64
from framefeed.errors import BadInput, FramefeedError, StorageFault
from framefeed.option_types import settle_types
from framefeed.quarantine import Quarantine, QuarantinedSpan, read_quarantine
from framefeed.ranges import check_range, check_ranges, check_text
from framefeed.show_value import show_value
from trainer_client.feed.sampler import PlannedBatch
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.measures.stats import Ledger
from trainer_client.samples import Dataset, Sample

_MAX_WHY = 200
_Row = tuple[int, tuple[int, ...], int, int, int, str]
_ROWS = msgspec.json.Decoder(list[_Row])
_DRAWS = 64  # for one place, before its error ends the run

PoisonPolicy = Literal["raise", "skip", "replace"]


class PoisonBudgetSpent(FramefeedError):
    """More samples could not be decoded than the run was told to do without."""

    code = "poison_budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoisonOptions:
    """What to do about clips that no server can give.

    A clip is held to be bad when `servers` different ones say so, or all there are. Each rank may do without `budget`
    different samples: a count from 1 on, below it a share of the dataset's samples (at least one). In `folder`, if
    given, framefeed.quarantine.jsonl lists what was found, under every policy; ranks need folders of their own.
    """

    policy: PoisonPolicy = "raise"
    servers: int = DispatchLimits().witnesses
    budget: float = 0.01
    folder: Path | None = None

    def __post_init__(self) -> None:
        settle_types(self, what="loader: poison")
        if self.servers < 1:
            raise BadInput(f"is {self.servers}, wanted at least 1", of="loader: poison", field="servers")
        if not self.budget >= 0 or (self.budget > 1 and self.budget % 1):
            wanted = "a whole number or a share from 0 to 1"
            raise BadInput(f"is {self.budget:g}, wanted {wanted}", of="loader: poison", field="budget")

    def samples(self, of: int) -> int:
        """How many samples of so many a rank may do without."""
        return max(int(self.budget * of), 1) if 0 < self.budget < 1 else int(self.budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """At `position` of the run the samples `failed` could not be had, the planned one first; `index` stands in.

    `draw` is the number of the seeded draw that chose it, `seed` its clip's, `reason` the code of the last error.
    """

    position: int
    failed: tuple[int, ...]
    draw: int
    index: int
    seed: int
    sample: Sample
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place of the run and the sample that the plan has there."""

    position: int
    index: int
    seed: int


def place_of(places: PlannedBatch, row: int) -> Place:
    """One row's place."""
    return Place(position=int(places.positions[row]), index=int(places.indices[row]), seed=int(places.seeds[row]))


class StandIns:
    """Chooses stand-ins for one rank, remembers which samples are bad. One thread calls it (write_found(): any)."""

    def __init__(self, dataset: Dataset, options: PoisonOptions, *, ledger: Ledger) -> None:
        self._dataset, self._options, self._ledger = dataset, options, ledger
        self._bad: set[int] = set()
        self._recorded: Mapping[int, StandIn] = {}
        self._found: deque[QuarantinedSpan] = deque()  # and not written yet

    def restart(self, record: Iterable[StandIn], *, replay: bool = False) -> None:
        """Begin where a run with this record stood, or, to `replay` it, before its first step."""
        kept = list(record)
        self._bad = {index for stood_in in kept for index in stood_in.failed}
        self._recorded = {stood_in.position: stood_in for stood_in in kept} if replay else {}

    def of(self, places: PlannedBatch) -> dict[int, StandIn]:
        """Who stands in, by row, without anything being asked: as recorded, or for samples that were dropped."""
        if not self._bad:
            return {}
        known = ((row, self._known(place_of(places, row))) for row in range(len(places.positions)))
        return {row: stand_in for row, stand_in in known if stand_in is not None}

    def _known(self, place: Place) -> StandIn | None:
        if self._recorded:
            return self._recorded.get(place.position)
        if self._options.policy != "skip" or place.index not in self._bad:
            return None
        return self._draw(place, None, reason="dropped")

    def after(self, place: Place, before: StandIn | None, error: FramefeedError) -> StandIn:
        """Who stands in now that the planned sample, or the stand-in before, failed.

        Raises the error under the policy `raise` or when nobody is left, PoisonBudgetSpent past the budget.
        """
        index = place.index if before is None else before.index
        sample = self._dataset[index]
        if index not in self._bad:
            self._bad.add(index)
            self._ledger.poisoned[error.code] += 1
            span = QuarantinedSpan(
                video=sample.video,
                start_s=sample.start_s,
                end_s=sample.end_s,
                reason=str(error),
                found_by="train",
            )
            self._found.append(span)
        if self._options.policy == "raise":
            raise error
        allowed = self._options.samples(len(self._dataset))
        if len(self._bad) > allowed:
            raise PoisonBudgetSpent(
                f"{len(self._bad)} of {len(self._dataset)} samples could not be had, wanted at most {allowed} (poison "
                f"budget {self._options.budget:g}); the last one: {error}"
            )
        found = self._draw(place, before, reason=error.code)
        if found is None:
            raise error
        return found

    def write_found(self) -> None:
        """Add what was found to the quarantine list, if one is kept. Blocks until it is on storage; any thread.

        Raises StorageFault if it cannot be written, BadInput if the folder holds one that cannot be read.
        """
        folder, spans = self._options.folder, list(self._found)
        if folder is None or not spans:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Quarantine(dict.fromkeys([*read_quarantine(folder).spans, *spans])).write(folder)
            for _ in spans:
                self._found.popleft()
        except OSError as error:
            raise StorageFault(f"quarantine list in {folder} cannot be written: {error.strerror}") from None

    def _draw(self, place: Place, before: StandIn | None, *, reason: str) -> StandIn | None:
        failed = (place.index,) if before is None else (*before.failed, before.index)
        for draw in range(0 if before is None else before.draw + 1, _DRAWS):
            index = draw_below(place.seed, len(self._dataset), stream=SPARE, counter=2 * draw)
            if index in failed or (self._options.policy == "skip" and index in self._bad):
                continue
            return StandIn(
                position=place.position,
                failed=failed,
                draw=draw,
                index=index,
                seed=draw_u64(place.seed, stream=SPARE, counter=2 * draw + 1),
                sample=self._dataset[index],
                reason=reason,
            )
        return None


def spell(record: Iterable[StandIn]) -> str:
    """A record as text for a run's state; spans and targets are the dataset's and stay there."""
    return json.dumps([[s.position, s.failed, s.draw, s.index, s.seed, s.reason] for s in record])


def read(text: object, dataset: Dataset) -> list[StandIn]:
    """What spell() wrote; nothing if it is None. Raises BadInput for anything else, or a record of another dataset."""
    if text is None:
        return []
    try:
        rows = _ROWS.decode(text if isinstance(text, str) else "")
        return [_stand_in(row, dataset) for row in rows]
    except (msgspec.MsgspecError, TypeError, ValueError, IndexError, RecursionError) as error:
        why = str(error)[:_MAX_WHY]
        raise BadInput(f"resume: stand_ins is {show_value(text)}, wanted a record of this dataset ({why})") from None


def _stand_in(row: _Row, dataset: Dataset) -> StandIn:
    """Raises ValueError, or what the dataset raises, for what no run of this dataset can have recorded."""
    position, failed, draw, index, seed, reason = row
    check_range("a position", position, 0, (1 << 63) - 1)
    check_range("a draw", draw, 0, _DRAWS - 1)
    check_range("a seed", seed, 0, (1 << 64) - 1)
    check_ranges("the samples", (index, *failed), 0, len(dataset) - 1)
    check_text("a reason", reason, most=64)
    return StandIn(
        position=position, failed=failed, draw=draw, index=index, seed=seed, sample=dataset[index], reason=reason
    )
