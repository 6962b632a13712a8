"""What a model says of every sample, once, on however many processes; it knows no model, metric or data set.

Each process takes its share of the plan in the data set's order and all see the rows of all, by the place they have in
the data set: so nothing is padded, doubled or cut off, and with as many clips a process and step the same batches are
passed through the model whoever has them. Axes: B clips of a process, G of all, N samples, R values of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer_client.feed.batch import Batch
from trainer_client.training.device_feed import DeviceBatch, to_device
from trainer_client.training.ranks import Ranks

_UNUSED = -1

RowsOf = Callable[[DeviceBatch], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Collected:
    """float64 (N, R), the plain mean over the views of each sample; int64 (N,) how many of its views were there.

    `stood_in` clips were another sample's, in the place of one that no server could give: they are in no mean. Of
    processes other than the first `mean_NR` has no rows.
    """

    mean_NR: npt.NDArray[np.float64]
    views_N: npt.NDArray[np.int64]
    views: int
    stood_in: int

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Bool (N,): which samples have at least one clip."""
        return self.views_N > 0

    @property
    def missing_clips(self) -> int:
        """How many views of samples there was no clip of."""
        return int((self.views - self.views_N).sum())


@torch.no_grad()
def collect(
    batches: Iterable[Batch], rows_of: RowsOf, *, samples: int, views: int, ranks: Ranks, device: torch.device
) -> Collected:
    """Pass a plan of one epoch in the data set's order through `rows_of`, which gives a row (B, R) for each clip.

    View v of sample n is index n x views + v. A collective: all processes call it. Blocks until the plan is over.
    """
    sums_NR: npt.NDArray[np.float64] | None = None
    views_N = np.zeros(samples, np.int64)
    stood_in = 0
    for batch in batches:
        rows_BR = rows_of(to_device(batch, device)).float()
        index_B, strange = _places(batch)
        said_BR = torch.tensor(np.stack((index_B, strange), axis=1), device=device)
        rows_GR = ranks.gather(rows_BR).cpu().numpy()
        index_G, strange_G = ranks.gather(said_BR).cpu().numpy().T
        stood_in += int(strange_G.sum())
        used_G = index_G != _UNUSED
        at_G = index_G[used_G] // views
        np.add.at(views_N, at_G, 1)
        if ranks.rank == 0:
            if sums_NR is None:
                sums_NR = np.zeros((samples, rows_GR.shape[1]))
            np.add.at(sums_NR, at_G, rows_GR[used_G].astype(np.float64))
    if sums_NR is None:
        sums_NR = np.zeros((0, 0))
    else:
        sums_NR /= np.maximum(views_N, 1)[:, None]
    return Collected(mean_NR=sums_NR, views_N=views_N, views=views, stood_in=stood_in)


def _places(batch: Batch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The index of each clip, and whether it stands in for another; UNUSED for those, and behind the last sample."""
    rows = {int(position): row for row, position in enumerate(batch.positions)}
    strange_B = np.zeros(len(batch), np.int64)
    for stand_in in batch.stand_ins:
        strange_B[rows[stand_in.position]] = 1
    strange_B[batch.epochs > 0] = 0
    return np.where((batch.epochs > 0) | (strange_B > 0), _UNUSED, batch.indices), strange_B
