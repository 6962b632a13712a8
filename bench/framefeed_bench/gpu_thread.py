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

from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput
from framefeed.sampling import Segments
from framefeed_bench.gpu_fed import Resident, fed_against_resident
from framefeed_bench.gpu_step import FRAMES, SIDE_PX, STRONG, gpu_side
from framefeed_bench.machine import provenance
from framefeed_bench.one_core import on_core, two_cores
from framefeed_bench.product_step import host_batch
from framefeed_bench.running_server import READY_SERVER, running_server
from framefeed_models.pixel_norm import CLIP
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.text.narration_bpe import NarrationTokenizer
from trainer_client.training.augment.masking import CubeMask
from trainer_client.training.augment.mixup import MixRule
from trainer_client.training.copies import Copies, Tensors
from trainer_client.training.device_feed import DeviceFeed, Preparing
from trainer_client.training.loop import Feeding
from trainer_client.training.tasks.contrastive import Texts
from trainer_client.training.tasks.mae import masks_of

LIMIT_MS = 2.0
_POLICY = ClipPolicy(
    sampling=Segments(frames=FRAMES), crop=RandomResizedCrop(), width_px=SIDE_PX, height_px=SIDE_PX,
    pixel_format="yuv420p",
)  # fmt: skip
_SAMPLES = tuple(Sample(video="ready", start_s=float(at), end_s=at + 1.0) for at in range(1024))


@dataclass(frozen=True, kw_only=True)
class TrainingBench:
    """Time of the training thread that feeding takes a step.

    And step times fed against resident; on a GPU its augmentation and its idle time.
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
            "thread_ms": served_thread_ms(self.batch_clips, steps=self.steps),
            "fed_against_resident": fed_against_resident(steps=self.steps),
        }
        if torch.cuda.is_available():
            result |= gpu_side(self.batch_clips)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        Console().print_json(data=result)


def served_thread_ms(clips: int, *, steps: int) -> dict[str, float]:
    """`thread_ms` of batches that a loader has from a real server, on another core, whose clips are ready."""
    server_core, client_core = two_cores()
    with running_server(READY_SERVER, "tcp", core=server_core) as server, on_core(client_core):
        options = LoaderOptions(servers=[server.url], batch_clips=clips, steps=steps, prefetch_batches=4, stall_s=60.0)
        with ClipLoader(_SAMPLES, _POLICY, options) as loader:
            return thread_ms(clips, steps=steps, source=loader)


def thread_ms(clips: int, *, steps: int, source: Feeding | None = None) -> dict[str, float]:
    """Median CPU milliseconds of this thread a step for its batch, from next() of the source on, and of the preparing
    thread for the same. Without a source batches lie there.

    4 frames of 224 px, YUV, with all augmentations, mixup, masks and tokens. On a GPU up to the launches of its
    augmentation; without one copies go nowhere and the launches, two kernels and the blur's, are not in it.
    """
    on_gpu = torch.cuda.is_available()
    batch, work = host_batch(clips, np.zeros((clips, *_POLICY.shape), np.uint8), frames=FRAMES), _HostWork()
    feeding: Feeding = Resident([batch]) if source is None else source
    preparing = Preparing(work=work, augment=STRONG, dtype=torch.bfloat16)
    times, prepared = list[float](), list[float]()
    device, copying = torch.device("cuda" if on_gpu else "cpu"), None if on_gpu else _NoDevice()
    with DeviceFeed(feeding, preparing, device=device, copying=copying) as feed:
        for step in range(steps):
            began_s = time.thread_time()
            feed.fetch()
            feed.fill(most=steps - step)
            taken = feed.take()
            feeding.count_copy_wait(feed.waited_s)
            _ = feeding.waited_s
            if on_gpu:
                taken.normalised(CLIP)
            times.append(time.thread_time() - began_s)
    for _ in range(3):
        began_s = time.thread_time()
        preparing.host_tensors(batch)
        prepared.append(time.thread_time() - began_s)
    found = {"taken": statistics.median(times), "worst": max(times), "prepared": statistics.median(prepared)}
    return {name: round(1e3 * seconds, 3) for name, seconds in found.items()} | {"limit": LIMIT_MS}


class _HostWork:
    """What all tasks together make of a batch on the host."""

    def __init__(self) -> None:
        self._mix, self._masks = MixRule(), CubeMask(slots=FRAMES, cells=(SIDE_PX // 16) ** 2)
        self._tokenizer = NarrationTokenizer.train([sample.video for sample in _SAMPLES], vocabulary=300)
        self._texts = Texts(
            text_of=lambda sample, _: f"{sample.video} at {sample.start_s:g}", tokenizer=self._tokenizer
        )

    def __call__(self, batch: Batch) -> Mapping[str, torch.Tensor]:
        drawn = self._mix.draw(batch.seeds.tolist(), height_px=SIDE_PX, width_px=SIDE_PX, first_position=0)
        mixed = {"kept_B": drawn.kept_B, "box_B4": drawn.box_B4}
        return mixed | masks_of(self._masks, batch) | {"tokens_BL": self._texts.tokens(batch)}


class _NoDevice:
    """Copies to where nothing is computed."""

    def begin(self, tensors: Tensors) -> Copies:
        return Copies(tensors={name: tensor.to("meta") for name, tensor in tensors.items()})

    def arrive(self, copies: Copies) -> None:
        """At once."""
