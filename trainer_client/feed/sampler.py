"""The plan: which sample stands at which place of the run, for every rank; knows neither videos nor servers.

A run is one line of positions 0, 1, 2…, counted over all ranks: position p is sample order[p % n] of epoch p // n,
each epoch's order a permutation of its own, of which nothing is kept; without shuffling, sample p % n. Step s takes the
next G = B x world positions and rank r its r-th share, so the global batches do not depend on how many ranks share
them, every rank takes every step, and the whole state is one integer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from framefeed.draws import ORDER, U64, clip_seeds, draws_at, keys_u64
from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.feed.shuffle import shuffled

STATE_VERSION = 2  # 1 sorted a random key a sample: another order from the same seed
_POSITIONS = 1 << 63  # they are int64
_BLOCK_ROWS = 128  # that are drawn at a time: a NumPy call costs as much for four clips as for a hundred
_LINE_BIT = 48  # of a draw's number: above it is whose, below it the epoch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedBatch:
    """One rank's share of one step: int64 (B,) positions, epochs and sample indices, uint64 (B,) clip seeds; all of
    `bucket`. An epoch is the bucket's, of which a last batch may begin the next."""

    step: int
    bucket: int = 0
    positions: npt.NDArray[np.int64]
    epochs: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """A bucket's batches from `first` on, of one rank, one behind the other: a PlannedBatch's columns."""

    first: int
    epochs: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What part of each global batch this process takes: `batch_clips` of batch_clips x world_size."""

    batch_clips: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_clips < 1:
            raise BadInput(f"is {self.batch_clips}, wanted at least 1", of="loader", field="batch_clips")
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise BadInput(f"loader: rank is {self.rank} of {self.world_size}, wanted 0 <= rank < world_size")

    @property
    def global_batch_clips(self) -> int:
        """Clips of one step over all ranks."""
        return self.batch_clips * self.world_size


class Sampler:
    """Batches by step: a pure function of (run seed, number of samples, share), any step at the same small cost.

    Time and memory are some batches', whatever the number of samples and wherever an epoch ends. Without `shuffle` each
    epoch is in the dataset's order, its clips' seeds the same. With `buckets`, the samples of each, int64, every batch
    is of one of them; without shuffling an epoch has them one behind the other.
    """

    def __init__(
        self,
        *,
        samples: int,
        run_seed: int,
        share: Share,
        shuffle: bool = True,
        buckets: Sequence[npt.NDArray[np.int64]] = (),
    ) -> None:
        """Raises BadInput for an empty dataset, a seed outside 0 to 2**64 - 1, or buckets of other samples."""
        if samples < 1:
            raise BadInput(f"loader: the dataset has {samples} samples, wanted at least 1")
        if not 0 <= run_seed < 1 << 64:
            raise BadInput(f"is {run_seed}, wanted 0 to 2**64 - 1", of="loader", field="run_seed")
        self.samples = samples
        self.run_seed = run_seed
        self.share = share
        self.shuffle = shuffle
        self._buckets = buckets
        self._sizes = [len(bucket) for bucket in buckets] or [samples]
        if sum(self._sizes) != samples:
            raise BadInput(f"loader: buckets have {sum(self._sizes)} samples, wanted the dataset's {samples}")
        self._block_steps = max(_BLOCK_ROWS // share.batch_clips, 1)
        self._blocks: dict[int, _Block] = {}  # the last one drawn of each bucket
        self._order_keys = keys_u64(np.array([run_seed], np.uint64), stream=ORDER)

    def batch(self, step: int) -> PlannedBatch:
        """This rank's share of a step."""
        bucket, number = self._of_bucket(step)
        first = number - number % self._block_steps
        block = self._blocks.get(bucket)
        if block is None or block.first != first:
            block = self._blocks[bucket] = self._draw(bucket, first)
        rows = slice((number - first) * self.share.batch_clips, (number - first + 1) * self.share.batch_clips)
        return PlannedBatch(
            step=step,
            bucket=bucket,
            positions=self._rows(step),
            epochs=block.epochs[rows].copy(),
            indices=block.indices[rows].copy(),
            seeds=block.seeds[rows].copy(),
        )

    def _draw(self, bucket: int, first: int) -> _Block:
        """A bucket's batches from its `first` on, as many as are drawn at a time and as there are positions for."""
        last = min(first + self._block_steps, _POSITIONS // self.share.global_batch_clips)
        rows = np.concatenate([self._rows(number) for number in range(first, last)])
        epochs, places = np.divmod(rows, self._sizes[bucket])
        if self.shuffle:
            places = shuffled(places, seeds=self._order_seeds(epochs, line=bucket), n=self._sizes[bucket])
        indices = self._buckets[bucket][places] if self._buckets else places
        seeds = clip_seeds(self.run_seed, epochs=epochs, indices=indices)
        return _Block(first=first, epochs=epochs, indices=indices, seeds=seeds)

    def _rows(self, number: int) -> npt.NDArray[np.int64]:
        """This rank's places in a global batch of that number, counted from the first one's beginning."""
        share = self.share
        first = number * share.global_batch_clips + share.rank * share.batch_clips
        return np.arange(first, first + share.batch_clips, dtype=np.int64)

    def steps_in(self, epochs: float) -> int:
        """Steps that use every sample of `epochs` epochs, as written; the last one may begin the epoch after."""
        return self._steps_before(Fraction(str(epochs)))  # 1.1 of 10 samples is 11

    def _of_bucket(self, step: int) -> tuple[int, int]:
        """Whose step it is, and which of that bucket's."""
        if len(self._sizes) == 1:
            return 0, step
        most = step * self.share.global_batch_clips // self.samples  # no step of an epoch is emptier than its batch
        epoch = bisect_right(range(most + 1), step, key=self._steps_before) - 1
        firsts = self._bucket_steps(epoch)
        counts = [after - before for before, after in zip(firsts, self._bucket_steps(epoch + 1), strict=True)]
        place = step - sum(firsts)
        if self.shuffle:
            seeds = self._order_seeds(np.array([epoch]), line=len(self._sizes))
            place = int(shuffled(np.array([place]), seeds=seeds, n=sum(counts))[0])
        ends = list(accumulate(counts))
        bucket = bisect_right(ends, place)
        return bucket, firsts[bucket] + place - (ends[bucket] - counts[bucket])

    def _bucket_steps(self, epochs: int | Fraction) -> list[int]:
        """Steps of each bucket that use its samples so many times."""
        return [-(-epochs * size // self.share.global_batch_clips) for size in self._sizes]

    def _steps_before(self, epoch: int | Fraction) -> int:
        return sum(self._bucket_steps(epoch))

    def _order_seeds(self, epochs: npt.NDArray[np.int64], *, line: int) -> U64:
        """What the orders of a bucket's epochs, or of the buckets' steps, follow from."""
        return draws_at(self._order_keys, epochs.astype(np.uint64) + np.uint64(line << _LINE_BIT))

    def state_at(self, step: int) -> dict[str, int]:
        """The state of a run that has done `step` steps, made of integers only: fit for JSON or a checkpoint."""
        state = {
            "version": STATE_VERSION,
            "position": step * self.share.global_batch_clips,
            "run_seed": self.run_seed,
            "samples": self.samples,
            "global_batch_clips": self.share.global_batch_clips,
        }
        return state if self.shuffle else state | {"shuffle": False}

    def step_of(self, state: Mapping[str, object]) -> int:
        """The step at which a run with this state goes on.

        Raises BadInput, naming both values, for the state of another plan: the version of the order, run seed, dataset
        length, global batch or shuffling.
        """
        if state.get("version") != STATE_VERSION:
            raise BadInput(
                "resume: the state was saved by framefeed's order of version "
                f"{show_value(state.get('version'))}, wanted "
                f"{STATE_VERSION}: end that run with the release that began it, or begin a new one"
            )
        mine, theirs = {"shuffle": True} | self.state_at(0), {"shuffle": True, **state}
        for name in ("run_seed", "samples", "global_batch_clips", "shuffle"):
            seen = theirs.get(name)
            if seen != mine[name]:
                shown = show_value(seen)
                raise BadInput(f"resume: {name} is {shown} in the state and {mine[name]} here; wanted the same")
        position, batch_clips = state.get("position"), self.share.global_batch_clips
        if not isinstance(position, int) or not 0 <= position <= _POSITIONS - batch_clips or position % batch_clips:
            raise BadInput(
                f"resume: position is {show_value(position)}, wanted a multiple of the global batch {batch_clips} "
                "below 2**63"
            )
        return position // batch_clips
