"""One rank of a small run that logs which samples each of its steps used: python -m … ROOT OUT SERVER STEPS OPTION…

The product's session, loop, loader and task; RANK, WORLD_SIZE and MASTER_* say which rank of which run it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch

from framefeed.crops import RandomResizedCrop
from framefeed.errors import FramefeedError
from framefeed.manifest import read_manifest
from framefeed.sampling import Dense
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import PRESETS
from trainer_client.clip_policy import ClipPolicy
from trainer_client.samples import VideoWindows
from trainer_client.training.average import Average
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.feed_options import FeedOptions, FeedPlan
from trainer_client.training.learning import LearningOptions
from trainer_client.training.loop import TrainLoop
from trainer_client.training.processes import joined
from trainer_client.training.session import RunConfig, Session, SessionOptions
from trainer_client.training.step import Run
from trainer_client.training.tasks.mae import MaeTask, MaskedInputs

FRAMES, SIDE_PX, CLIPS = 2, 32, 4


class LoggedTask(MaeTask):
    """Writes a line for each batch that a step uses."""

    log: Path

    def prepare(self, batch: DeviceBatch) -> MaskedInputs:
        samples = [[s.video, s.start_s] for s in batch.batch.samples]
        line = {"step": batch.batch.step, "positions": batch.batch.positions.tolist(), "samples": samples}
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return super().prepare(batch)


def main() -> None:
    """Train to the end, or die."""
    reader = argparse.ArgumentParser()
    reader.add_argument("root", type=Path)
    reader.add_argument("out", type=Path)
    reader.add_argument("server")
    reader.add_argument("steps", type=int)
    reader.add_argument("--every", type=int, default=1000)
    reader.add_argument("--parallel", choices=["ddp", "fsdp2"], default="ddp")
    wanted = reader.parse_args()
    compute_options = ComputeOptions(device="cpu", precision="fp32", threads=1, parallel=wanted.parallel)
    grid = TubeletGrid(frames=FRAMES, height_px=SIDE_PX, width_px=SIDE_PX, patch_px=8)
    model = dataclasses.replace(PRESETS["tiny"], grid=grid)
    dataset = VideoWindows(read_manifest(wanted.root), window_s=0.5)
    policy = ClipPolicy(
        sampling=Dense(frames=FRAMES, stride=1), crop=RandomResizedCrop(), width_px=SIDE_PX, height_px=SIDE_PX
    )
    options = SessionOptions(out=wanted.out, resume=True, checkpoint_every=wanted.every, metrics_port=0, log_every=1000)
    plan = FeedPlan(
        root=wanted.root,
        logs=wanted.out,
        dataset=dataset,
        policy=policy,
        batch_clips=CLIPS,
        seed=0,
        steps=wanted.steps,
    )
    config = RunConfig(what={"steps": wanted.steps}, steps=wanted.steps)
    with joined(torch.device("cpu")) as ranks:
        compute = compute_options.open(ranks)
        with Session(options, config=config, ranks=ranks) as session:
            torch.manual_seed(0)
            task = LoggedTask(model, mask_ratio=0.5, device=compute.device)
            task.log = wanted.out / f"used.rank{ranks.rank}.jsonl"
            task.trunk = compute.passes.parallel.spread(task.model, task.trunk)
            run = Run(
                task=task,
                learning=LearningOptions(lr=1e-3).build(task.model, steps=wanted.steps, batch_clips=CLIPS),
                passes=compute.passes,
                average=Average(task.model, decay=0.9),
                seed=0,
            )
            feed = FeedOptions(servers=(wanted.server,), prefetch_batches=2)
            with feed.open(plan, compute=compute, registry=session.registry) as loader:
                session.train(TrainLoop(run, loader, device=compute.device), loader)


if __name__ == "__main__":
    try:
        main()
    except FramefeedError as error:
        print(f"framefeed: {error}", file=sys.stderr)
        raise SystemExit(1) from None
