"""The product's own training step of a dual encoder over one batch that lies on the device, augmentation included.

It knows the product's parts and no clock.

Axes: B clips, T frames, Y rows, X columns, C channels, L tokens of a text.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.pixel_norm import CLIP
from trainer_client.feed.batch import Batch
from trainer_client.samples import Sample
from trainer_client.text.narration_bpe import NarrationTokenizer
from trainer_client.training.augment.augment import TO_RGB
from trainer_client.training.augment.pixels import colour_maps
from trainer_client.training.average import Average
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.learning import LearningOptions
from trainer_client.training.precision import DTYPES
from trainer_client.training.step import Run, train_step
from trainer_client.training.tasks.contrastive import ContrastiveTask, PairInputs, Texts

COLOUR = Colour(matrix="bt709")
_MANY_STEPS = 10_000  # of the schedule, which stands in its warm-up


class ProductStep:
    """A run of a dual encoder as a recipe makes it: fp32 weights, clipped gradients, fused AdamW."""

    def __init__(self, config: DualEncoderConfig, compute: ComputeOptions) -> None:
        found = compute.open()
        texts = Texts(
            text_of=lambda sample, _: sample.video, tokenizer=NarrationTokenizer.train(["clip"], vocabulary=300)
        )
        task = ContrastiveTask(config, texts, device=found.device)
        task.trunk = found.passes.parallel.spread(task.model, task.trunk)
        learning = LearningOptions(lr=1e-5).build(task.model, steps=_MANY_STEPS, batch_clips=256)
        self.run: Run[PairInputs] = Run(
            task=task, learning=learning, passes=found.passes, average=Average(task.model, decay=0.0), seed=0
        )

    @property
    def model(self) -> nn.Module:
        """What learns."""
        return self.run.task.model

    def step(self, batch: DeviceBatch) -> Tensor:
        """Augmentation, forward, backward, update. Gives the loss on its way to the host, and waits for nothing."""
        return train_step(self.run, batch).values[0]


def resident_batch(config: DualEncoderConfig, clips: int, compute: ComputeOptions) -> DeviceBatch:
    """Random YUV clips, colour maps and texts on the device, in the shapes that a model of this configuration takes."""
    grid, text, device = config.video.grid, config.text, compute.where()
    shape = (clips, grid.frames, grid.height_px * 3 // 2, grid.width_px)
    tokens_BL = torch.randint(1, text.vocabulary - 2, (clips, text.context), device=device)
    tokens_BL[:, -1] = text.vocabulary - 1
    host = host_batch(clips, np.zeros((clips, *(1,) * 4), np.uint8), frames=grid.frames)
    return DeviceBatch(
        batch=host,
        pixels=torch.randint(0, 256, shape, dtype=torch.uint8, device=device),
        seeds_B=torch.arange(clips, device=device),
        draws={TO_RGB: colour_maps([COLOUR] * clips).to(device)},
        own={"tokens_BL": tokens_BL},
        dtype=DTYPES[compute.precision],
    )


def clips_of(batch: DeviceBatch) -> Tensor:
    """The batch's clips as models take them, (B, C, T, Y, X)."""
    return batch.normalised(CLIP)


def host_batch(clips: int, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], *, frames: int) -> Batch:
    """A batch of so many clips around these pixels."""
    box = Box(x_px=0, y_px=0, width_px=64, height_px=64)
    info = ClipInfo(
        pts_s=tuple(i / 10 for i in range(frames)), box=box, flipped=False, colour=COLOUR, read_bytes=1, fed_packets=1
    )
    return Batch(
        step=0,
        pixels=pixels,
        positions=np.arange(clips),
        epochs=np.zeros(clips, np.int64),
        indices=np.arange(clips),
        seeds=np.arange(clips, dtype=np.uint64),
        samples=(Sample(video="clip", start_s=0.0, end_s=1.0),) * clips,
        infos=(info,) * clips,
    )
