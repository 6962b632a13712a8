"""What a GPU does beside computing: its augmentation's time and memory, and for how long it stands between two steps.

It knows the product's step and CUDA's clocks; `framefeed bench training` writes what it finds. Needs CUDA.

Axes: B clips.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from framefeed.cli.stop_signals import StopSignals
from framefeed_bench.gpu_fed import Resident
from framefeed_bench.gpu_speed import seconds_a_step, waiting_is_an_error
from framefeed_bench.product_step import COLOUR, ProductStep, host_batch
from framefeed_models.dual_encoder import avion
from framefeed_models.pixel_norm import CLIP
from trainer_client.feed.slots import SlotPool
from trainer_client.training.augment.augment import TO_RGB, augment_clips
from trainer_client.training.augment.draws import draw_augmentations
from trainer_client.training.augment.one_pass import Pass
from trainer_client.training.augment.pixels import colour_maps
from trainer_client.training.augment.rule import AugmentOptions, ClipShape
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.loop import Limits, StepRecord, TrainLoop
from trainer_client.training.torch_batches import pinned_memory

FRAMES, SIDE_PX = 4, 224
STRONG = AugmentOptions(flip=0.5, jitter=0.8, grey=0.2, blur=0.5, rand_ops=4, erase=0.25, erase_noise=True)
AUGMENTATIONS = {"plain": AugmentOptions(), "jitter": AugmentOptions(jitter=0.8), "all": STRONG}
_WARM_STEPS = 8


def gpu_side(batch_clips: int, *, steps: int = 20) -> dict[str, Any]:
    """Augmentation of a batch by its options, and the share of a resident run in which the GPU stood."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "augmentation": {name: augmentation(options, batch_clips) for name, options in AUGMENTATIONS.items()},
        "idle_share": round(idle_share(batch_clips, steps=steps), 5),
    }


def augmentation(options: AugmentOptions, clips: int) -> dict[str, float]:
    """Milliseconds of the augmentation of YUV clips of 4 frames of 224 px to bf16, and the most memory that it takes at
    a time, its output included, over that output's. Raises RuntimeError if it waits for the device.
    """
    shape, cuda = (clips, FRAMES, SIDE_PX * 3 // 2, SIDE_PX), torch.device("cuda")
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=cuda)
    size = ClipShape(frames=FRAMES, height_px=SIDE_PX, width_px=SIDE_PX)
    draws = draw_augmentations(options, np.arange(clips, dtype=np.uint64), size)
    draws = {name: tensor.to(cuda) for name, tensor in draws.items()}
    draws[TO_RGB] = colour_maps([COLOUR] * clips).to(cuda)
    seeds_B = torch.arange(clips, device=cuda)
    what = Pass(norm=CLIP, dtype=torch.bfloat16, noise=options.erase_noise)
    augment_clips(pixels, draws, seeds_B, what=what)  # compiles
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with waiting_is_an_error():
        out = augment_clips(pixels, draws, seeds_B, what=what)
    torch.cuda.synchronize()
    taken = (torch.cuda.max_memory_allocated() - before) / (out.numel() * out.element_size())
    seconds = seconds_a_step(lambda: augment_clips(pixels, draws, seeds_B, what=what))
    return {"ms": round(1e3 * seconds, 3), "memory_over_output": round(taken, 4)}


def idle_share(clips: int, *, steps: int) -> float:
    """The share of a ViT-B dual encoder's steps in which the GPU stood, by its events, fed from batches that lie there
    in page-locked memory, through the product's loop with all augmentations.
    """
    shape = (clips, FRAMES, SIDE_PX * 3 // 2, SIDE_PX)
    slots = SlotPool(math.prod(shape), spare=2, allocate=pinned_memory)
    batches = [host_batch(clips, slots.take(shape), frames=FRAMES) for _ in range(2)]
    run = ProductStep(avion("CLIP_VITB16"), ComputeOptions(compiled="on")).run
    loop = TrainLoop(run, Resident(batches), device=torch.device("cuda"), augment=STRONG)
    records = list[StepRecord]()
    with StopSignals(first_only=True) as stops:
        loop.run(Limits(steps=_WARM_STEPS), stops=stops)
        loop.on_record.append(records.append)
        loop.run(Limits(steps=_WARM_STEPS + steps), stops=stops)
    timed = records[1:]  # the first one stood while the loop was left and entered again
    return sum(sum((record.idle_s or {}).values()) for record in timed) / sum(record.step_s for record in timed)
