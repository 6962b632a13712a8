"""Masked autoencoding: a clip's row is VideoMAE's loss of it, and pictures show what it has learned.

It knows pixels, masks and the model; not where batches come from or how weights move.

Axes: B clips, T frames, Y rows, X columns, C channels, N tokens, M masked tokens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framefeed_models.pixel_norm import IMAGENET
from framefeed_models.videomae import SplitMask, VideoMAE, VideoMAEConfig, VideoMAEOutput, rebuild_clips, split_mask
from trainer_client.feed.batch import Batch
from trainer_client.training.augment.masking import CubeMask, MaskShape
from trainer_client.training.device_feed import DeviceBatch, to_device
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.feature_spread import feature_spread
from trainer_client.training.tasks.task import ClipInputs, Losses
from trainer_client.training.watch.contact_sheet import SheetClip

_GREY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedInputs(ClipInputs):
    """Clips, their masks, bool (B, N), True = masked, and the numbers of visible and masked cubes as SplitMask has."""

    mask_BN: Tensor
    visible_BS: Tensor
    masked_BM: Tensor

    @property
    def where(self) -> SplitMask:
        """The mask as models take it."""
        return SplitMask(visible_BS=self.visible_BS, masked_BM=self.masked_BM)


def masks_of(cubes: CubeMask, batch: Batch) -> dict[str, Tensor]:
    """The masks of a batch's clips by their seeds, on the host, as MaskedInputs has them."""
    mask_BN = torch.from_numpy(cubes.draw(batch.seeds.tolist()))
    visible_BS, masked_BM = split_mask(mask_BN)
    return {"mask_BN": mask_BN, "visible_BS": visible_BS, "masked_BM": masked_BM}


class MaeTask:
    """VideoMAE on a device. A clip's mask follows from its seed, so it is new in every epoch."""

    coupled = False

    def __init__(
        self, config: VideoMAEConfig, *, mask_ratio: float, device: torch.device, mask_shape: MaskShape = "tube"
    ) -> None:
        """Raises BadInput for a ratio that masks nothing or all."""
        grid = config.grid
        self._grid, self._device = grid, device
        self._cubes = CubeMask(slots=grid.slots, cells=grid.cells, ratio=mask_ratio, shape=mask_shape)
        self.model: nn.Module = VideoMAE(config).to(device)
        self.trunk: nn.Module = self.model

    def on_host(self, batch: Batch) -> dict[str, Tensor]:
        """The masks of the clips' seeds."""
        return masks_of(self._cubes, batch)

    def prepare(self, batch: DeviceBatch) -> MaskedInputs:
        """ImageNet's normalisation, and the masks."""
        masks = batch.made_by(self.on_host)
        return MaskedInputs(x_BCTYX=batch.normalised(IMAGENET), seeds_B=batch.seeds_B, frames_B=None, **masks)

    def rows(self, x: MaskedInputs) -> Tensor:
        """The loss of each clip, Tong et al. 2022, eq. 3, over normalised pixels; and its features, (B, 1 + D)."""
        output = self._forward(x)
        assert output.features_BD is not None
        return torch.cat((output.losses_B[:, None], output.features_BD.float()), dim=1)

    def loss(self, rows: Tensor, x: MaskedInputs, ranks: Ranks) -> Losses:
        """The mean of the clips' losses."""
        return Losses(total=rows[:, 0].mean(), parts=feature_spread(rows[:, 1:]))

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def _forward(self, x: MaskedInputs) -> VideoMAEOutput:
        output: VideoMAEOutput = self.trunk(x.x_BCTYX, x.where, seeds_B=x.seeds_B)
        return output

    @torch.no_grad()
    def show(self, batch: Batch, *, clips: int) -> list[SheetClip]:
        """The first clips of a batch as they are, as the encoder sees them, and with masked cubes as predicted."""
        few = _first(batch, clips)
        x = self.prepare(to_device(few, self._device))
        self.trunk.eval()
        rebuilt_BCTYX = rebuild_clips(x.x_BCTYX, self._forward(x), grid=self._grid)
        hidden_BCTYX = self._hidden(x.mask_BN.cpu())
        original, rebuilt = (_pixels(clips_BCTYX) for clips_BCTYX in (x.x_BCTYX, rebuilt_BCTYX))
        masked = torch.where(hidden_BCTYX.permute(0, 2, 3, 4, 1), torch.tensor(_GREY), original)
        return [
            SheetClip(
                label=f"{sample.video}, {sample.start_s:g}–{sample.end_s:g} s",
                times_s=info.pts_s,
                rows={"original": o.numpy(), "masked": m.numpy(), "reconstruction": r.numpy()},
            )
            for sample, info, o, m, r in zip(few.samples, few.infos, original, masked, rebuilt, strict=True)
        ]

    def _hidden(self, mask_BN: Tensor) -> Tensor:
        """Which pixels are masked, bool (B, 1, T, Y, X)."""
        grid = self._grid
        cells = mask_BN.view(-1, 1, grid.slots, grid.rows, grid.columns)
        for axis, length in ((2, grid.tubelet_frames), (3, grid.patch_px), (4, grid.patch_px)):
            cells = cells.repeat_interleave(length, dim=axis)
        return cells


def _pixels(x_BCTYX: Tensor) -> Tensor:
    """Normalised clips as float32 RGB in [0, 1], (B, T, Y, X, C), on the CPU."""
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    return (x_BCTYX.float().cpu() * std + mean).clamp(0, 1).permute(0, 2, 3, 4, 1)


def _first(batch: Batch, clips: int) -> Batch:
    names = {field.name for field in dataclasses.fields(Batch)} - {"step", "stand_ins"}
    return dataclasses.replace(batch, **{name: getattr(batch, name)[:clips] for name in names})
