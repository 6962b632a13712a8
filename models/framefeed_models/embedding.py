"""Clips to the first tokens of a network: cubes, their positions, a class token. It knows no blocks or masks.

Axes: B clips, T frames, Y rows, X columns, C channels, N all cubes of a clip, S selected cubes of a clip, D width,
P pixels of one cube, G cells: the cubes of one temporal slot, U temporal slots.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from framefeed_models.positions import grid_positions, resize_cells, resize_slots, sincos_positions
from framefeed_models.tubelets import TubeletGrid, cut_cubes

Positions = Literal["flat", "grid", "learned"]
POSITION_STD = 0.02


def position_table(grid: TubeletGrid, *, width: int, kind: Positions) -> Tensor:
    """The fixed positions of a clip's tokens, float32 (N, D): VideoMAE's flat table, or one with an axis each.

    Raises ValueError for a width or kind that makes no fixed table.
    """
    if kind == "flat":
        return sincos_positions(grid.tokens, width=width)
    if kind == "grid":
        return grid_positions((grid.slots, grid.rows, grid.columns), width=width)
    raise ValueError(f"positions are {kind!r}, wanted flat or grid, the ones that are computed")


class ClipEmbedding(nn.Module):
    """A linear map of each cube, plus its position; before them a class token if there is one.

    Learned positions are a spatial table plus a temporal one that starts at zero, so that a network whose spatial part
    comes from images begins as that image network on each frame (Bain et al. 2021, §3.2; LaViLa, AVION).
    The class token has a position of its own and no time.
    """

    positions_ND: Tensor

    def __init__(
        self,
        grid: TubeletGrid,
        *,
        width: int,
        positions: Positions,
        class_token: bool = False,
        bias: bool = True,
        any_shape: bool = False,
    ) -> None:
        """`any_shape`: clips may be of other frames and sizes that cubes tile; learned tables are interpolated then as
        in `fit_positions`, at each step, and fixed ones computed anew.
        """
        super().__init__()
        if positions not in get_args(Positions):
            raise ValueError(f"positions are {positions!r}, wanted one of {get_args(Positions)}")
        self.grid, self.learned, self.class_token = grid, positions == "learned", class_token
        self.positions, self.any_shape = positions, any_shape
        self._tables = dict[TubeletGrid, Tensor]()  # fixed ones of other grids, where the weights are
        # A Linear over a cube's values (pixels, then channels) is the usual strided convolution, but of any subset.
        self.projection = nn.Linear(grid.cube_pixels * grid.channels, width, bias=bias)
        if class_token:
            self.class_token_D = nn.Parameter(torch.randn(width) * POSITION_STD)
        if self.learned:
            self.position_cells_GD = nn.Parameter(torch.randn(grid.cells, width) * POSITION_STD)
            self.temporal_UD = nn.Parameter(torch.zeros(grid.slots, width))
            if class_token:
                self.position_class_D = nn.Parameter(torch.randn(width) * POSITION_STD)
        else:
            table_ND = position_table(grid, width=width, kind=positions)
            self.register_buffer("positions_ND", table_ND, persistent=False)

    def forward(self, x_BCTYX: Tensor, *, selected_BS: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) of float clips (B, C, T, Y, X), or (B, S, D) of cubes `selected_BS`; a class token first.

        `selected_BS` holds int64 cube numbers on the clips' device; cubes that are not selected are never read.
        Raises ValueError if the clips do not have the grid's shape, or one that its cubes do not tile.
        """
        grid = self.grid_of(x_BCTYX)
        cubes_BSPC = cut_cubes(x_BCTYX, grid=grid, selected_BS=selected_BS)
        table_ND = self.table(grid)
        positions = table_ND if selected_BS is None else table_ND[selected_BS]
        tokens_BSD: Tensor = self.projection(cubes_BSPC.flatten(2)) + positions
        if not self.class_token:
            return tokens_BSD
        class_D = self.class_token_D + self.position_class_D if self.learned else self.class_token_D
        return torch.cat((class_D.expand(x_BCTYX.shape[0], 1, -1).to(tokens_BSD.dtype), tokens_BSD), dim=1)

    def grid_of(self, x_BCTYX: Tensor) -> TubeletGrid:
        """The grid of clips: this one's, or where any shape will do their own. Raises ValueError for none."""
        if not self.any_shape or x_BCTYX.ndim != 5:
            return self.grid
        frames, height_px, width_px = x_BCTYX.shape[2:]
        return replace(self.grid, frames=frames, height_px=height_px, width_px=width_px)

    def table(self, grid: TubeletGrid | None = None) -> Tensor:
        """The positions of all cubes of a clip, (N, D): fixed, or temporal_UD[u] + position_cells_GD[g], u first."""
        grid, own = grid or self.grid, self.grid
        if self.learned:
            cells = resize_cells(
                self.position_cells_GD, source=(own.rows, own.columns), target=(grid.rows, grid.columns)
            )
            return (resize_slots(self.temporal_UD, slots=grid.slots)[:, None] + cells).flatten(0, 1)
        if grid == own:
            return self.positions_ND
        known = self._tables.get(grid)
        if known is None or known.device != self.positions_ND.device:
            table_ND = position_table(grid, width=self.positions_ND.shape[1], kind=self.positions)
            known = self._tables[grid] = table_ND.to(self.positions_ND)
        return known


def fit_positions(weights: dict[str, Tensor], *, source: TubeletGrid, target: TubeletGrid) -> dict[str, Tensor]:
    """The weights of a network for clips of `source` as weights for clips of `target`: longer, shorter or larger ones.

    Learned tables are interpolated, the temporal one linearly (4 → 16 frames as AVION does), the spatial one
    bicubically; all else, and tables that fit already, is taken as it is. Fixed tables are not among the weights.
    Raises ValueError if the cubes differ in size: no interpolation turns one projection into the other.
    """
    for name in ("channels", "tubelet_frames", "patch_px"):
        seen, wanted = getattr(source, name), getattr(target, name)
        if seen != wanted:
            raise ValueError(f"positions: {name} is {seen} in the weights, wanted the model's {wanted}")
    cells, slots = (source.rows, source.columns), target.slots
    return {
        name: resize_cells(tensor, source=cells, target=(target.rows, target.columns))
        if name.endswith("position_cells_GD")
        else resize_slots(tensor, slots=slots)
        if name.endswith("temporal_UD")
        else tensor
        for name, tensor in weights.items()
    }
