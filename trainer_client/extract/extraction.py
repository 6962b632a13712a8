"""Every clip of a data set once, in its order, through a model, into shards; knows no options, weights or servers.

Axes: B clips of this process, G of all, S rows of a shard, R values of a row: features, then the measures of CONTENT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer_client.extract.clip_features import ClipFeatures
from trainer_client.extract.content import CONTENT, measure_content
from trainer_client.extract.shard_files import Rows
from trainer_client.extract.shard_folder import ShardFolder
from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader
from trainer_client.samples import Dataset, Sample
from trainer_client.training.device_feed import DeviceBatch, DeviceFeed, Preparing
from trainer_client.training.ranks import Ranks

_NO_SAMPLE = -1


class BegunAt:
    """A data set from sample `first` on, and then those before it: all of it can stand in for a clip that is bad."""

    def __init__(self, dataset: Dataset, *, first: int) -> None:
        self._dataset, self._first = dataset, first

    @property
    def identity(self) -> str:
        """Which data set the videos are of, if the data set says it."""
        return str(getattr(self._dataset, "identity", ""))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int, /) -> Sample:
        """The sample at an index from 0. Raises IndexError past the end, so iteration ends there."""
        if not 0 <= index < len(self):
            raise IndexError(f"samples: index is {index}, wanted 0 to {len(self) - 1}")
        return self._dataset[(self._first + index) % len(self)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """A step's rows of all processes, on the device: float32 (G, R), and int64 (G,) which sample each is, or -1."""

    rows_GR: Tensor
    index_G: Tensor

    def read(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Both, as they are. Waits for the device."""
        return self.rows_GR.cpu().numpy(), self.index_G.cpu().numpy()


@torch.no_grad()
def features_of(loader: ClipLoader, features: ClipFeatures, *, ranks: Ranks, device: torch.device) -> Iterator[Step]:
    """A loader's steps passed through the model, each given out once the next is under way. A collective.

    Blocks and raises as next(loader) does.
    """
    before: Step | None = None
    with DeviceFeed(loader, Preparing(), device=device) as feed:
        for left in range(loader.steps or 0, 0, -1):
            feed.fetch()
            feed.fill(most=left)
            batch = feed.take()
            index_B = torch.from_numpy(_indices(batch.batch)).to(device)
            step = Step(rows_GR=ranks.gather(_rows(batch, features)), index_G=ranks.gather(index_B))
            if before is not None:
                yield before
            before = step
    if before is not None:
        yield before


def _rows(batch: DeviceBatch, features: ClipFeatures) -> Tensor:
    return torch.cat((features.rows_of(batch).flatten(1), measure_content(batch.pixels)), dim=1)


def _indices(batch: Batch) -> npt.NDArray[np.int64]:
    """Of each clip; none for what stands in for another one, and for what fills up the last batch."""
    replaced = [stand_in.position for stand_in in batch.stand_ins]
    return np.where((batch.epochs > 0) | np.isin(batch.positions, replaced), _NO_SAMPLE, batch.indices)


class _Shard:
    """Rows of a shard that is being filled; those that never come are NaN."""

    def __init__(self, first: int, rows: int, values: int) -> None:
        self.first, self.end = first, first + rows
        self.values_SR = np.full((rows, values), np.nan, np.float32)
        self.found_S = np.zeros(rows, np.bool_)

    def put(self, rows_GR: npt.NDArray[np.float32], index_G: npt.NDArray[np.int64]) -> None:
        """Take those rows that are of this shard."""
        mine_G = (index_G >= self.first) & (index_G < self.end)
        self.values_SR[index_G[mine_G] - self.first] = rows_GR[mine_G]
        self.found_S[index_G[mine_G] - self.first] = True


class Filling:
    """Puts rows in their places and gives shards that are whole to a folder, in order. Of one process alone."""

    def __init__(self, folder: ShardFolder, dataset: Dataset, *, shape: tuple[int, ...], dtype: str) -> None:
        self._folder, self._dataset = folder, dataset
        self._shape, self._dtype = shape, np.dtype(dtype)
        self.missing = 0
        """Clips that no server could give, in the shards that were given."""

    def fill(
        self, steps: Iterable[Step], *, first_shard: int, said: Callable[[], Mapping[str, object]]
    ) -> Iterator[int]:
        """Take the steps from a shard on; the number of shards that are done, after each of them.

        Blocks as the steps and the folder do; at its end all is on storage. Raises StorageFault.
        """
        shard = self._begin(first_shard)
        begin = at = shard.first
        done = first_shard
        for step in steps:
            rows_GR, index_G = step.read()
            index_G = np.where(index_G == _NO_SAMPLE, _NO_SAMPLE, index_G + begin)
            at += len(index_G)
            shard.put(rows_GR, index_G)
            while done < self._folder.shards and at >= shard.end:
                self._give(shard, said())
                done += 1
                yield done
                if done < self._folder.shards:
                    shard = self._begin(done)
                    shard.put(rows_GR, index_G)
        self._folder.settle()

    def _begin(self, number: int) -> _Shard:
        values = int(np.prod(self._shape)) + len(CONTENT)
        return _Shard(number * self._folder.rows_of(0), self._folder.rows_of(number), values)

    def _give(self, shard: _Shard, said: Mapping[str, object]) -> None:
        measures = len(CONTENT)
        self.missing += int(np.count_nonzero(~shard.found_S))
        rows = Rows(
            first=shard.first,
            samples=[self._dataset[index] for index in range(shard.first, shard.end)],
            features=shard.values_SR[:, :-measures].astype(self._dtype).reshape(-1, *self._shape),
            content=shard.values_SR[:, -measures:],
            found=shard.found_S,
        )
        self._folder.write(rows, said)
