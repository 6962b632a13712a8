"""Which tokens of a clip are hidden from a masked autoencoder; it knows token counts and clip seeds, not pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.draws import TUBES, permutation
from framefeed.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class TubeMask:
    """One random spatial mask shared by all temporal slots: tubes through time (Tong et al. 2022, §3.3).

    A clip has `slots` x `cells` tokens, numbered slot first; floor(`ratio` x `cells`) cells are masked in every slot.
    Raises BadInput if that leaves nothing masked or nothing visible.
    """

    slots: int
    cells: int
    ratio: float = 0.9

    def __post_init__(self) -> None:
        if self.slots < 1 or self.cells < 2:
            raise BadInput(f"tube mask: {self.slots} slots of {self.cells} cells, wanted at least 1 of at least 2")
        if not 0.0 < self.ratio < 1.0:
            raise BadInput(f"tube mask: ratio is {self.ratio}, wanted 0 < ratio < 1")
        if not 0 < self.masked_cells < self.cells:
            raise BadInput(
                f"tube mask: ratio {self.ratio} of {self.cells} cells masks {self.masked_cells}, wanted some"
            )

    @property
    def masked_cells(self) -> int:
        """Masked cells of one slot. A product one rounding below a whole number counts as that number."""
        return int(self.ratio * self.cells + 1e-9)

    def draw(self, clip_seeds: Sequence[int]) -> npt.NDArray[np.bool_]:
        """The masks of clips with these 64-bit seeds, bool (B, N), True = masked; equal for equal seeds everywhere.

        Raises BadInput for an empty batch.
        """
        if len(clip_seeds) == 0:
            raise BadInput("tube mask: got no clip seeds, wanted at least one")
        mask_BN = np.zeros((len(clip_seeds), self.cells), dtype=np.bool_)
        for row, seed in zip(mask_BN, clip_seeds, strict=True):
            row[permutation(seed, stream=TUBES, n=self.cells)[: self.masked_cells]] = True
        return np.tile(mask_BN, (1, self.slots))
