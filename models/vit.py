"""The video vision transformer: clips in, tokens out. It knows tubelets and blocks, not what the tokens are used for.

Axes: B clips, T frames, Y rows, X columns, C channels, N all tokens of a clip, S selected tokens of a clip, D width,
P pixels of one cube.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from models.block import LAYER_NORM_EPS, Stack, StackConfig, init_xavier
from models.positions import grid_positions, sincos_positions
from models.tubelets import TubeletGrid, cut_cubes

PositionTable = Literal["flat", "grid"]


def position_table(grid: TubeletGrid, *, width: int, kind: PositionTable) -> Tensor:
    """The fixed positions of a clip's tokens, float32 (N, D): VideoMAE's flat table, or one with an axis each.

    Raises ValueError for a width or kind that makes no table.
    """
    if kind == "flat":
        return sincos_positions(grid.tokens, width=width)
    if kind == "grid":
        return grid_positions((grid.slots, grid.rows, grid.columns), width=width)
    raise ValueError(f"positions are {kind!r}, wanted one of {get_args(PositionTable)}")


class VideoViT(nn.Module):
    """Tubelet embedding, fixed sin-cos positions, pre-norm blocks, final norm (VideoMAE's encoder, Tong et al. 2022).

    It has no class token. Weights start Xavier-uniform, biases at 0.
    """

    positions_ND: Tensor

    def __init__(self, grid: TubeletGrid, *, stack: StackConfig, positions: PositionTable = "flat") -> None:
        super().__init__()
        self.grid = grid
        # A Linear over a cube's values (pixels, then channels) is the usual strided Conv3d, but can take any subset.
        self.embedding = nn.Linear(grid.cube_pixels * grid.channels, stack.width)
        self.stack = Stack(stack)
        self.norm = nn.LayerNorm(stack.width, eps=LAYER_NORM_EPS)
        table_ND = position_table(grid, width=stack.width, kind=positions)
        self.register_buffer("positions_ND", table_ND, persistent=False)
        self.apply(init_xavier)

    def forward(self, x_BCTYX: Tensor, *, selected_BS: Tensor | None = None) -> Tensor:
        """Encode float clips (B, C, T, Y, X) to tokens (B, N, D), or only the cubes `selected_BS` to (B, S, D).

        `selected_BS` holds int64 cube numbers on the clips' device; cubes that are not selected are never read.
        Raises ValueError if the clips do not have the grid's shape.
        """
        cubes_BSPC = cut_cubes(x_BCTYX, grid=self.grid, selected_BS=selected_BS)
        positions = self.positions_ND if selected_BS is None else self.positions_ND[selected_BS]
        tokens_BSD: Tensor = self.embedding(cubes_BSPC.flatten(2))
        encoded_BSD: Tensor = self.norm(self.stack(tokens_BSD + positions))
        return encoded_BSD
