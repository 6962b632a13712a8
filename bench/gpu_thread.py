"""`framefeed bench training`: what feeding costs the training thread a step, and a fed run beside a resident one.

Without a GPU the first is measured against a device that computes nothing (torch's `meta`). It knows feeds; servers
are `gpu_fed`'s.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from bench.gpu_fed import fed_against_resident
from bench.machine import provenance
from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box
from framefeed.errors import BadInput
from models.pixel_norm import CLIP
from trainer_client.feed.batch import Batch
from trainer_client.samples import Sample
from trainer_client.training.augment.mixup import MixRule
from trainer_client.training.augment.rule import AugmentOptions
from trainer_client.training.copies import Copies, Tensors
from trainer_client.training.device_feed import DeviceFeed, Preparing

LIMIT_MS = 2.0
_STRONG = AugmentOptions(flip=0.5, jitter=0.8, grey=0.2, blur=0.5, rand_ops=4, erase=0.25, erase_noise=True)


@dataclass(frozen=True, kw_only=True)
class TrainingBench:
    """Time of the training thread that feeding takes a step.

    And step times fed against resident.
    """

    out: Path = Path("bench/results/training.json")
    """Where the result is written."""
    batch_clips: int = 256
    """Clips of a batch whose feeding is timed."""
    steps: int = 20
    """Steps that are timed, in each of four turns."""

    def run(self) -> None:
        """Measure, print, write. Blocks for some minutes. Raises BadInput for numbers that make no bench."""
        if self.batch_clips < 2 or self.batch_clips % 2 or self.steps < 2:
            raise BadInput(f"bench: batch_clips is {self.batch_clips} and steps {self.steps}, wanted an even number, 2")
        result: dict[str, Any] = {
            **provenance(),
            "torch": torch.__version__,
            "batch_clips": self.batch_clips,
            "thread_ms": thread_ms(self.batch_clips, steps=self.steps),
            "fed_against_resident": fed_against_resident(steps=self.steps),
        }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        Console().print_json(data=result)


def thread_ms(clips: int, *, steps: int) -> dict[str, float]:
    """Median CPU milliseconds of this thread a step for its batch, and of the preparing thread for the same.

    4 frames of 224 px, YUV, with all augmentations and mixup. On a GPU from a batch that is ready to the launches of
    its augmentation; without one copies go nowhere and the launches, two kernels and the blur's, are not in it.
    """
    on_gpu = torch.cuda.is_available()
    batch = _made(clips)
    mix = MixRule()

    def on_host(made: Batch) -> Mapping[str, torch.Tensor]:
        drawn = mix.draw(made.seeds.tolist(), height_px=224, width_px=224, first_position=0)
        return {"kept_B": drawn.kept_B, "box_B4": drawn.box_B4}

    preparing = Preparing(work=on_host, augment=_STRONG, dtype=torch.bfloat16)
    times, prepared = list[float](), list[float]()
    device, copying = torch.device("cuda" if on_gpu else "cpu"), None if on_gpu else _NoDevice()
    with DeviceFeed(_Endless(batch), preparing, device=device, copying=copying) as feed:
        for _ in range(steps):
            feed.fetch()
            feed.fill(most=3)
            began_s = time.thread_time()
            taken = feed.take()
            if on_gpu:
                taken.normalised(CLIP)
            times.append(time.thread_time() - began_s)
    for _ in range(3):
        began_s = time.thread_time()
        preparing.host_tensors(batch)
        prepared.append(time.thread_time() - began_s)
    found = {"taken": statistics.median(times), "prepared": statistics.median(prepared)}
    return {name: round(1e3 * seconds, 3) for name, seconds in found.items()} | {"limit": LIMIT_MS}


class _NoDevice:
    """Copies to where nothing is computed."""

    def begin(self, tensors: Tensors) -> Copies:
        return Copies(tensors={name: tensor.to("meta") for name, tensor in tensors.items()})

    def arrive(self, copies: Copies) -> None:
        """At once."""


class _Endless:
    is_ready = True

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __next__(self) -> Batch:
        return self._batch


def _made(clips: int) -> Batch:
    box = Box(x_px=0, y_px=0, width_px=64, height_px=64)
    info = ClipInfo(pts_s=(0.0, 0.1, 0.2, 0.3), box=box, flipped=False, colour=Colour(), read_bytes=1, fed_packets=1)
    return Batch(
        step=0,
        pixels=np.zeros((clips, 4, 336, 224), np.uint8),
        positions=np.arange(clips),
        epochs=np.zeros(clips, np.int64),
        indices=np.arange(clips),
        seeds=np.arange(clips, dtype=np.uint64),
        samples=(Sample(video="v", start_s=0.0, end_s=1.0),) * clips,
        infos=(info,) * clips,
    )
