"""Which tokens of a clip are hidden from a masked autoencoder; it knows token counts and clip seeds, not pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from framefeed.draws import TUBES, draws_at, keys_u64
from framefeed.errors import BadInput
from framefeed.show_value import show_value

MaskShape = Literal["tube", "random", "frame"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeMask:
    """A random mask over a clip's tokens, `slots` x `cells` of them, numbered slot first (Tong et al. 2022, figure 3).

    What is drawn, and masked as a whole: `tube`, a cell in all slots (VideoMAE's choice, §3.3); `random`, a single
    token (Feichtenhofer et al. 2022); `frame`, a slot with all its cells. floor(`ratio` x their number) are masked.
    Raises BadInput if that leaves nothing masked or nothing visible.
    """

    slots: int
    cells: int
    ratio: float = 0.9
    shape: MaskShape = "tube"

    def __post_init__(self) -> None:
        if self.shape not in get_args(MaskShape):
            raise BadInput(f"mask: shape is {show_value(self.shape)}, wanted one of {get_args(MaskShape)}")
        if min(self.slots, self.cells) < 1 or self.units < 2:
            wanted = f"at least 2 {self.shape}s to choose from"
            raise BadInput(f"{self.shape} mask: {self.slots} slots of {self.cells} cells, wanted {wanted}")
        if not 0.0 < self.ratio < 1.0:
            raise BadInput(f"{self.shape} mask: ratio is {self.ratio}, wanted 0 < ratio < 1")
        if not 0 < self.masked_units < self.units:
            seen = f"ratio {self.ratio} of {self.units} masks {self.masked_units}"
            raise BadInput(f"{self.shape} mask: {seen}, wanted at least one masked and one visible")

    @property
    def units(self) -> int:
        """How many tubes, tokens or frames there are to mask."""
        return {"tube": self.cells, "random": self.slots * self.cells, "frame": self.slots}[self.shape]

    @property
    def masked_units(self) -> int:
        """How many of them are masked. A product one rounding below a whole number counts as that number."""
        return int(self.ratio * self.units + 1e-9)

    def draw(self, clip_seeds: Sequence[int]) -> npt.NDArray[np.bool_]:
        """The masks of clips with these 64-bit seeds, bool (B, N), True = masked; equal for equal seeds everywhere.

        Raises BadInput for an empty batch.
        """
        if len(clip_seeds) == 0:
            raise BadInput(f"{self.shape} mask: got no clip seeds, wanted at least one")
        units = np.zeros((len(clip_seeds), self.units), dtype=np.bool_)
        keys = keys_u64(np.asarray(clip_seeds, np.uint64), stream=TUBES)[:, None]
        order = np.argsort(draws_at(keys, np.arange(self.units, dtype=np.uint64)), axis=1, kind="stable")
        np.put_along_axis(units, order[:, : self.masked_units], True, axis=1)  # the first of `permutation` of each
        if self.shape == "tube":
            return np.tile(units, (1, self.slots))
        return np.repeat(units, self.cells, axis=1) if self.shape == "frame" else units
