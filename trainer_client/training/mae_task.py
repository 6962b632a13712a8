"""Masked autoencoding as a task: batches to VideoMAE's loss, and to pictures of what it has learned.

It knows pixels, masks and the model; not where batches come from or how weights move.

Axes: B clips, T frames, Y rows, X columns, C channels, N tokens, M masked tokens.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from models.pixel_norm import IMAGENET
from models.videomae import VideoMAE, VideoMAEConfig, VideoMAEOutput, rebuild_clips
from trainer_client.feed.batch import Batch
from trainer_client.training.augment import normalise_rgb, normalise_yuv
from trainer_client.training.compute import Compute
from trainer_client.training.contact_sheet import SheetClip
from trainer_client.training.masking import CubeMask, MaskShape
from trainer_client.training.torch_batches import to_torch

_GREY = 0.5


class MaeTask:
    """VideoMAE on the run's device. A clip's mask follows from its seed, so it is new in every epoch."""

    def __init__(
        self, config: VideoMAEConfig, *, mask_ratio: float, compute: Compute, mask_shape: MaskShape = "tube"
    ) -> None:
        """Raises BadInput for a ratio that masks nothing or all."""
        grid = config.grid
        self._grid, self._compute = grid, compute
        self._cubes = CubeMask(slots=grid.slots, cells=grid.cells, ratio=mask_ratio, shape=mask_shape)
        self._videomae = VideoMAE(config).to(compute.device)
        self.model: torch.nn.Module = self._videomae

    def loss(self, batch: Batch) -> Tensor:
        """The loss of one batch, a float32 scalar on the device. The batch must live until the device has read it."""
        output: VideoMAEOutput = self._videomae(self._augment(batch), self._mask(batch))
        return output.loss

    @torch.no_grad()
    def show(self, batch: Batch, *, clips: int) -> list[SheetClip]:
        """The first clips of a batch as they are, as the encoder sees them, and with masked cubes as predicted."""
        few = _first(batch, clips)
        clips_BCTYX, mask_BN = self._augment(few), self._mask(few)
        self.model.eval()
        with self._compute.autocast():
            output = self._videomae(clips_BCTYX, mask_BN)
        rebuilt_BCTYX = rebuild_clips(clips_BCTYX, output, grid=self._grid)
        hidden_BCTYX = self._hidden(mask_BN)
        original, rebuilt = (_pixels(x) for x in (clips_BCTYX, rebuilt_BCTYX))
        masked = torch.where(hidden_BCTYX.permute(0, 2, 3, 4, 1), torch.tensor(_GREY), original)
        return [
            SheetClip(
                label=f"{sample.video}, {sample.start_s:g}–{sample.end_s:g} s",
                times_s=info.pts_s,
                rows={"original": o.numpy(), "masked": m.numpy(), "reconstruction": r.numpy()},
            )
            for sample, info, o, m, r in zip(few.samples, few.infos, original, masked, rebuilt, strict=True)
        ]

    def _augment(self, batch: Batch) -> Tensor:
        pixels = self._compute.move(to_torch(batch).pixels)
        if pixels.ndim == 5:
            return normalise_rgb(pixels)
        # "center": libswscale's siting, so that of every clip which a server has scaled.
        return normalise_yuv(pixels, colours=[info.colour for info in batch.infos], siting="center")

    def _mask(self, batch: Batch) -> Tensor:
        return torch.from_numpy(self._cubes.draw(batch.seeds.tolist()))

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
