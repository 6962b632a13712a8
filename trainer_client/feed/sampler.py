"""The plan: which sample stands at which place of the run, for every rank; knows neither videos nor servers.

A run is one line of positions 0, 1, 2…, counted over all ranks: position p is sample permutation[p % n] of epoch
p // n; without shuffling, sample p % n. Step s takes the next G = B x world positions and rank r its r-th share, so the
global batches do not depend on how many ranks share them, every rank takes every step, and the whole state is one
integer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.draws import ORDER, clip_seed, draw_u64, permutation
from framefeed.errors import BadInput

STATE_VERSION = 1
_CACHED_EPOCHS = 2  # a batch may end one epoch and begin the next


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedBatch:
    """One rank's share of one step: int64 (B,) positions, epochs and sample indices, uint64 (B,) clip seeds."""

    step: int
    positions: npt.NDArray[np.int64]
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
            raise BadInput(f"loader: batch_clips is {self.batch_clips}, wanted at least 1")
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise BadInput(f"loader: rank is {self.rank} of {self.world_size}, wanted 0 <= rank < world_size")

    @property
    def global_batch_clips(self) -> int:
        """Clips of one step over all ranks."""
        return self.batch_clips * self.world_size


class Sampler:
    """Batches by step: a pure function of (run seed, number of samples, share), with two epochs' orders kept at hand.

    The first batch of an epoch sorts n keys (about 0.1 s a million samples); all others are index arithmetic. Without
    `shuffle` nothing is sorted: each epoch is in the dataset's order, its clips' seeds the same.
    """

    def __init__(self, *, samples: int, run_seed: int, share: Share, shuffle: bool = True) -> None:
        """Raises BadInput for an empty dataset or a seed outside 0 to 2**64 - 1."""
        if samples < 1:
            raise BadInput(f"loader: the dataset has {samples} samples, wanted at least 1")
        if not 0 <= run_seed < 1 << 64:
            raise BadInput(f"loader: run_seed is {run_seed}, wanted 0 to 2**64 - 1")
        self.samples = samples
        self.run_seed = run_seed
        self.share = share
        self.shuffle = shuffle
        self._orders: OrderedDict[int, npt.NDArray[np.int64]] = OrderedDict()

    def batch(self, step: int) -> PlannedBatch:
        """This rank's share of a step."""
        first = step * self.share.global_batch_clips + self.share.rank * self.share.batch_clips
        positions = np.arange(first, first + self.share.batch_clips, dtype=np.int64)
        epochs, places = np.divmod(positions, self.samples)
        indices = places.copy()
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1) if self.shuffle else ():
            chosen = epochs == epoch
            indices[chosen] = self._order(epoch)[places[chosen]]
        pairs = zip(epochs.tolist(), indices.tolist(), strict=True)
        seeds = [clip_seed(self.run_seed, epoch=epoch, index=index) for epoch, index in pairs]
        return PlannedBatch(
            step=step, positions=positions, epochs=epochs, indices=indices, seeds=np.array(seeds, dtype=np.uint64)
        )

    def steps_in(self, epochs: float) -> int:
        """Steps that use every sample of `epochs` epochs; the last one may begin the epoch after."""
        return -int(-epochs * self.samples // self.share.global_batch_clips)

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

        Raises BadInput, naming both values, for the state of another plan: run seed, dataset length, global batch or
        shuffling.
        """
        mine, theirs = {"shuffle": True} | self.state_at(0), {"shuffle": True, **state}
        for name in ("version", "run_seed", "samples", "global_batch_clips", "shuffle"):
            seen = theirs.get(name)
            if seen != mine[name]:
                raise BadInput(f"resume: {name} is {seen} in the state and {mine[name]} here; wanted the same")
        position = state.get("position")
        if not isinstance(position, int) or position < 0 or position % self.share.global_batch_clips:
            raise BadInput(
                f"resume: position is {position!r}, wanted a multiple of the global batch {mine['global_batch_clips']}"
            )
        return position // self.share.global_batch_clips

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._orders:
            seed = draw_u64(self.run_seed, stream=ORDER, counter=epoch)
            self._orders[epoch] = permutation(seed, stream=ORDER, n=self.samples)
            while len(self._orders) > _CACHED_EPOCHS:
                self._orders.popitem(last=False)
        return self._orders[epoch]
