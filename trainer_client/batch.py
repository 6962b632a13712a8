"""Batch: what the loader yields, NumPy only; knows neither how its clips came nor what learns from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.clip import ClipInfo
from trainer_client.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One rank's clips of one step, in plan order; row i of everything is the same clip.

    `pixels` uint8 (B, T, Y, X, 3) rgb24 or (B, T, Y*3/2, X) yuv420p, valid for as long as it, a view of it or a tensor
    over it is held. int64 (B,): `positions` in the run, `epochs`, `indices` into the dataset. `seeds` uint64 (B,): all
    that is random about each clip. `infos`: frame times, crop box, flip, colour and cost of each. `step` counts from 0.
    """

    step: int
    pixels: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.int64]
    epochs: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.uint64]
    samples: tuple[Sample, ...]
    infos: tuple[ClipInfo, ...]

    def __post_init__(self) -> None:
        rows = {len(getattr(self, name)) for name in self.__slots__ if name != "step"}
        if len(rows) != 1:
            raise ValueError(f"batch: fields have {sorted(rows)} rows, wanted one number of clips")

    def __len__(self) -> int:
        return len(self.samples)
