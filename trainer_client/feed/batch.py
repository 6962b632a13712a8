"""Batch: what the loader yields, NumPy only; knows neither how its clips came nor what learns from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.clip import ClipInfo
from trainer_client.feed.stand_ins import StandIn
from trainer_client.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One rank's clips of one step, in plan order; row i of everything is the same clip.

    `pixels` uint8 (B, T, Y, X, 3) rgb24 or (B, T, Y*3/2, X) yuv420p, valid for as long as it, a view of it or a tensor
    over it is held. int64 (B,): `positions` in the run, `epochs`, `indices` into the dataset. `seeds` uint64 (B,): all
    that is random about each clip. `infos`: frame times, crop box, flip, colour and cost of each. `step` of the plan
    counts from 0. `stand_ins` says which rows hold another sample than the planned one, and why; `indices`, `seeds` and
    `samples` are those of the clips that are there.
    """

    step: int
    pixels: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.int64]
    epochs: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.uint64]
    samples: tuple[Sample, ...]
    infos: tuple[ClipInfo, ...]
    stand_ins: tuple[StandIn, ...] = ()

    def __post_init__(self) -> None:
        rows = {len(getattr(self, name)) for name in self.__slots__ if name not in ("step", "stand_ins")}
        if len(rows) != 1:
            raise ValueError(f"batch: fields have {sorted(rows)} rows, wanted one number of clips")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def frame_mask(self) -> npt.NDArray[np.bool_]:
        """Bool (B, T): which frames are of the video, and not black because its span had no more (short="pad")."""
        mask = np.ones(self.pixels.shape[:2], np.bool_)
        for row, info in zip(mask, self.infos, strict=True):
            if info.padding:
                row[:] = np.logical_not(info.padding)
        return mask

    @property
    def frames(self) -> tuple[int, ...] | None:
        """How many frames of each clip are of the video, those of padding behind them; None if all are."""
        if not any(info.padding and any(info.padding) for info in self.infos):
            return None
        return tuple(len(info.pts_s) - sum(info.padding) for info in self.infos)

    @property
    def pixel_mask(self) -> npt.NDArray[np.bool_]:
        """Bool (B, Y, X) of the picture: which pixels are of the video, and not black beside a letterboxed one."""
        rows, columns = self.pixels.shape[2:4]
        mask = np.ones((len(self), rows if self.pixels.ndim == 5 else rows * 2 // 3, columns), np.bool_)
        for picture, info in zip(mask, self.infos, strict=True):
            if info.placed is not None:
                x, y = info.placed.x_px, info.placed.y_px
                picture[...] = False
                picture[y : y + info.placed.height_px, x : x + info.placed.width_px] = True
        return mask
