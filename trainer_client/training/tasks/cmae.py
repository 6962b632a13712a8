"""CMAE-V: masked autoencoding and contrast between two moments of a clip, on the seam of rows and a loss.

It knows views, masks and the model; not how weights move.

Axes: B clips, U frames of a clip as it is fed, T frames of a view, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framefeed.draws import SHIFT, draw_below
from framefeed.errors import BadInput
from framefeed_models.cmae import CMAE, CMAEConfig, later_frames, split_rows, two_views
from framefeed_models.pixel_norm import IMAGENET
from trainer_client.feed.batch import Batch
from trainer_client.training.augment.masking import CubeMask, MaskShape
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.feature_spread import feature_spread
from trainer_client.training.tasks.mae import MaskedInputs, masks_of
from trainer_client.training.tasks.task import Losses


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewInputs(MaskedInputs):
    """The masked view, and the same clips a little later."""

    later_BCTYX: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRule:
    """How a clip becomes two views: a mask, and a shift of 0 to `longest_shift` frames, which is a choice of ours.

    `momentum` is the target's. Raises BadInput for a shift below 0 or a momentum outside [0, 1].
    """

    mask_ratio: float = 0.9
    mask_shape: MaskShape = "tube"
    longest_shift: int = 2
    momentum: float = 0.996

    def __post_init__(self) -> None:
        if self.longest_shift < 0 or not 0 <= self.momentum <= 1:
            seen = f"longest_shift {self.longest_shift}, momentum {self.momentum}"
            raise BadInput(f"CMAE: got {seen}, wanted at least 0 frames and 0 <= momentum <= 1")


class CmaeTask:
    """Clips of T + `longest_shift` frames; branches make their rows, the heads compare those of all ranks.

    Batch norm in the heads sees every clip of the step, whatever the split. Clips have ImageNet's normalisation.
    """

    coupled = True

    def __init__(self, config: CMAEConfig, views: ViewRule, *, device: torch.device) -> None:
        """Raises BadInput for a ratio that masks nothing or all."""
        grid = config.mae.grid
        self._views, self._frames = views, grid.frames
        self._cubes = CubeMask(slots=grid.slots, cells=grid.cells, ratio=views.mask_ratio, shape=views.mask_shape)
        self._cmae = CMAE(config).to(device)
        self.model: nn.Module = self._cmae
        self.trunk: nn.Module = self._cmae.branches

    def on_host(self, batch: Batch) -> dict[str, Tensor]:
        """Masks, and the frames of the later view, by the clips' seeds."""
        seeds: list[int] = batch.seeds.tolist()
        shifts = [draw_below(seed, self._views.longest_shift + 1, stream=SHIFT) for seed in seeds]
        fed = (len(seeds), self._frames + self._views.longest_shift)
        later_BT = later_frames(torch.tensor(shifts), frames=self._frames, clips_BU=fed)
        return {"later_BT": later_BT, **masks_of(self._cubes, batch)}

    def prepare(self, batch: DeviceBatch) -> ViewInputs:
        """Two views and a mask. Raises BadInput for clips of another number of frames."""
        wanted, x_BCUYX = self._frames + self._views.longest_shift, batch.normalised(IMAGENET)
        if x_BCUYX.shape[2] != wanted:
            seen = x_BCUYX.shape[2]
            raise BadInput(f"CMAE: clips have {seen} frames, wanted {wanted}: the model's and the longest shift")
        masks = dict(batch.made_by(self.on_host))
        view_BCTYX, later_BCTYX = two_views(x_BCUYX, masks.pop("later_BT"))
        return ViewInputs(x_BCTYX=view_BCTYX, later_BCTYX=later_BCTYX, seeds_B=batch.seeds_B, frames_B=None, **masks)

    def rows(self, x: ViewInputs) -> Tensor:
        """Reconstruction loss and features of each clip, (B, 1 + 2 D)."""
        rows: Tensor = self.trunk(x.x_BCTYX, x.later_BCTYX, x.where, seeds_B=x.seeds_B).joined()
        return rows

    def loss(self, rows: Tensor, x: ViewInputs, ranks: Ranks) -> Losses:
        """Mean reconstruction loss, and the heads' weighted InfoNCE over the clips of all ranks (Huang et al. 2022)."""
        everyone = split_rows(ranks.gather(rows))
        contrast: Tensor = self._cmae.heads(everyone.online_BD, everyone.target_BD)
        reconstruction = everyone.reconstruction_B.mean()
        parts = {"reconstruction": reconstruction, "contrast": contrast, **feature_spread(everyone.online_BD)}
        return Losses(total=reconstruction + contrast, parts=parts)

    def after_step(self, step: int) -> None:
        """Move the target after the online branch."""
        self._cmae.update_target(self._views.momentum)
