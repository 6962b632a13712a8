"""The grid of space-time cubes that a clip is cut into; knows pixels and cube order, not networks or masks.

Axes: B clips, T frames, Y rows, X columns, C channels, N all cubes of a clip, S selected cubes of a clip, P pixels of
one cube. Cubes are numbered time first, then rows, then columns; the pixels of a cube likewise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TubeletGrid:
    """The shape of a clip and of the cubes it is cut into: `tubelet_frames` x `patch_px` x `patch_px` each.

    Raises ValueError if a size is not positive or the cubes do not tile the clip.
    """

    frames: int = 16
    height_px: int = 224
    width_px: int = 224
    channels: int = 3
    tubelet_frames: int = 2
    patch_px: int = 16

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"tubelet grid: {name} is {getattr(self, name)}, wanted at least 1")
        if self.frames % self.tubelet_frames:
            raise ValueError(f"tubelet grid: frames is {self.frames}, wanted a multiple of {self.tubelet_frames}")
        for name in ("height_px", "width_px"):
            if getattr(self, name) % self.patch_px:
                raise ValueError(f"tubelet grid: {name} is {getattr(self, name)}, wanted a multiple of {self.patch_px}")

    @property
    def slots(self) -> int:
        """Cubes along time."""
        return self.frames // self.tubelet_frames

    @property
    def rows(self) -> int:
        """Cubes along the height."""
        return self.height_px // self.patch_px

    @property
    def columns(self) -> int:
        """Cubes along the width."""
        return self.width_px // self.patch_px

    @property
    def cells(self) -> int:
        """Cubes of one temporal slot."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Cubes of the clip, N."""
        return self.slots * self.cells

    @property
    def cube_pixels(self) -> int:
        """Pixels of one cube, P, counted once for all channels."""
        return self.tubelet_frames * self.patch_px**2


def cut_cubes(x_BCTYX: Tensor, *, grid: TubeletGrid, selected_BS: Tensor | None) -> Tensor:
    """The cubes of clips, (B, N, P, C) of x's dtype; with `selected_BS` (int64 cube numbers) only those, (B, S, P, C).

    Only the selected cubes are copied. Raises ValueError if the clips do not have the grid's shape.
    """
    _check_clips(x_BCTYX, grid)
    cubes_BtyxpqrC = x_BCTYX.reshape(
        x_BCTYX.shape[0],
        *(grid.channels, grid.slots, grid.tubelet_frames, grid.rows, grid.patch_px, grid.columns, grid.patch_px),
    ).permute(0, 2, 4, 6, 3, 5, 7, 1)
    if selected_BS is None:
        return cubes_BtyxpqrC.reshape(-1, grid.tokens, grid.cube_pixels, grid.channels)
    clips_B1 = torch.arange(x_BCTYX.shape[0], device=x_BCTYX.device)[:, None]
    slots_BS = selected_BS // grid.cells
    rows_BS = selected_BS % grid.cells // grid.columns
    columns_BS = selected_BS % grid.columns
    return cubes_BtyxpqrC[clips_B1, slots_BS, rows_BS, columns_BS].flatten(2, 4)


def join_cubes(cubes_BNPC: Tensor, *, grid: TubeletGrid) -> Tensor:
    """The clips (B, C, T, Y, X) that all their cubes make up: the inverse of `cut_cubes`.

    Raises ValueError if the cubes are not those of the grid.
    """
    wanted = (grid.tokens, grid.cube_pixels, grid.channels)
    if cubes_BNPC.ndim != 4 or cubes_BNPC.shape[1:] != wanted:
        raise ValueError(f"cubes are {tuple(cubes_BNPC.shape)}, wanted (B, {', '.join(map(str, wanted))})")
    cubes_BtyxpqrC = cubes_BNPC.reshape(
        cubes_BNPC.shape[0],
        *(grid.slots, grid.rows, grid.columns, grid.tubelet_frames, grid.patch_px, grid.patch_px, grid.channels),
    )
    clips_BCtpyqxr = cubes_BtyxpqrC.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return clips_BCtpyqxr.reshape(-1, grid.channels, grid.frames, grid.height_px, grid.width_px)


def _check_clips(x_BCTYX: Tensor, grid: TubeletGrid) -> None:
    wanted = (grid.channels, grid.frames, grid.height_px, grid.width_px)
    if x_BCTYX.ndim != 5 or x_BCTYX.shape[1:] != wanted:
        raise ValueError(
            f"clips are {tuple(x_BCTYX.shape)}, wanted (B, {', '.join(map(str, wanted))}) = (B, C, T, Y, X)"
        )
    if not x_BCTYX.is_floating_point():
        raise ValueError(f"clips are {x_BCTYX.dtype}, wanted a floating dtype: normalise them first")
