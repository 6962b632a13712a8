"""The verb `train mae`: VideoMAE pre-training on the videos of a root; composes a run and knows no detail of it.

    framefeed train mae ROOT --out runs/mae              # decoding on the spare CPUs of the box that trains; or:
    framefeed serve ROOT                                                     # on any boxes that see the root
    framefeed train mae ROOT --servers tcp://127.0.0.1:5555 --out runs/mae   # on the box that trains

The defaults are VideoMAE's (Tong et al. 2022, table 7): ViT-B, 16 frames 4 apart at 224 px, 90 % tubes masked.

What runs in a minute on two CPU cores (AMD EPYC, both servers on the same cores), as `framefeed demo` does:

    framefeed train mae ROOT --servers URL URL --out runs/tiny --preset tiny --mask-ratio 0.5 --batch-clips 4 \\
        --lr 1.5e-3 --precision fp32 --threads 1 --steps 960

It costs 60 ms a step on one thread; the loss falls from 1.21 to 0.88 on three minutes of synthetic video.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput
from framefeed.manifest import read_manifest
from framefeed.quarantine import read_quarantine
from framefeed.sampling import Dense
from models.attention import Backend
from models.block import Checkpointing
from models.videomae import PRESETS, VideoMAEConfig
from trainer_client.clip_policy import ClipPolicy
from trainer_client.samples import VideoWindows
from trainer_client.training.augment.masking import MaskShape
from trainer_client.training.average import Average
from trainer_client.training.compute import Compute, ComputeOptions
from trainer_client.training.feed_options import FeedOptions, FeedPlan
from trainer_client.training.launcher import launch
from trainer_client.training.learning import LearningOptions
from trainer_client.training.loop import Ending, TrainLoop
from trainer_client.training.processes import joined, ranks_in
from trainer_client.training.recipes.recipe_file import RECIPE_NAME, write_recipe
from trainer_client.training.session import Session, SessionOptions
from trainer_client.training.step import Run
from trainer_client.training.tasks.mae import MaeTask, MaskedInputs
from trainer_client.training.watch.contact_sheet import draw_sheet

SHEET_NAME = "contact_sheet.png"
_NAME = "mae"
_SHEET_CLIPS = 4


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True, kw_only=True)
class TrainMae:
    """Pre-train a VideoMAE on the videos of a root, fed by decode servers."""

    root: Annotated[Path, tyro.conf.Positional]
    """Folder that the servers serve: its manifest says which videos there are."""
    preset: Literal["tiny", "small", "base", "large", "huge"] = "base"
    """Size of the model; tiny learns in a minute on two CPU cores."""
    frames: int | None = None
    """Frames of a clip. Default: the preset's (tiny 8, others 16)."""
    stride_frames: int = 4
    """Distance between two frames of a clip, in frames of the video."""
    size_px: int | None = None
    """Height and width of a clip in pixels. Default: the preset's (tiny 64, others 224)."""
    window_s: float = 4.0
    """Videos are cut into windows of so many seconds, the samples; a clip starts at a random frame of one."""
    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Least and largest share of the picture's area that a random crop takes."""
    hflip: float = 0.5
    """Probability that a clip is mirrored."""
    mask_ratio: float = 0.9
    """Share of the clip that is hidden from the encoder; 0.5 to 0.95 make sense."""
    mask_shape: MaskShape = "tube"
    """What is hidden as a whole: tube, a place through all frames; random, a single cube; frame, all places of one."""
    pixel_format: Literal["yuv420p", "rgb24"] = "yuv420p"
    """How clips travel: yuv420p is half the bytes, and the trainer's device converts it."""
    attention: Backend = "sdpa"
    """Attention's kernel: torch's choice (sdpa) or one of its, the flash-attn package, or the plain equation."""
    checkpointing: Checkpointing = "none"
    """Activations kept: all, each block's input, or each √depth-th; the rest is computed again, a third more time."""
    feed: FeedOptions = field(default_factory=FeedOptions)
    learning: LearningOptions = field(default_factory=LearningOptions)
    compute: ComputeOptions = field(default_factory=ComputeOptions)
    session: SessionOptions

    def run(self) -> None:
        """Train until the steps or the seconds are over, save, and draw the last batch with its reconstructions.

        With --nproc, and not in one of these processes, start them and wait for their end.
        Raises BadInput for options that make no run; KeyboardInterrupt after a clean end on Ctrl-C.
        """
        if self.compute.nproc > 1 and ranks_in().world == 1:
            launch(lambda path: write_recipe(path, self, name=_NAME), processes=self.compute.nproc)
            return
        with joined(self.compute.where()) as ranks:
            self._train(self.compute.open(ranks))

    def _train(self, compute: Compute) -> None:
        dataset = VideoWindows(read_manifest(self.root), window_s=self.window_s, quarantine=read_quarantine(self.root))
        model, session_options = self.model(), self.session
        plan = FeedPlan(
            root=self.root,
            logs=session_options.out,
            dataset=dataset,
            policy=self.policy(model),
            seed=session_options.seed,
            steps=session_options.steps,
        )
        config = self.config(model, samples=len(dataset))
        with Session(session_options, config=config, ranks=compute.ranks) as session:
            if compute.ranks.rank == 0:
                write_recipe(session_options.out / RECIPE_NAME, self, name=_NAME)
            torch.manual_seed(session_options.seed)
            task = MaeTask(model, mask_ratio=self.mask_ratio, mask_shape=self.mask_shape, device=compute.device)
            task.trunk = compute.passes.parallel.spread(task.model, task.trunk)
            run: Run[MaskedInputs] = Run(
                task=task,
                learning=self.learning.build(task.model, steps=plan.steps, batch_clips=self.feed.batch_clips),
                passes=compute.passes,
                average=Average(task.model, decay=self.learning.average_decay),
                seed=session_options.seed,
            )
            with self.feed.open(plan, compute=compute, registry=session.registry) as loader:
                loop = TrainLoop(run, loader, device=compute.device)
                ending = session.train(loop, loader)
            if ending is not Ending.STOPPED and loop.last_batch is not None:
                title = f"VideoMAE {self.preset} after {loop.steps_done} steps"
                clips = task.show(loop.last_batch, clips=_SHEET_CLIPS)
                if compute.ranks.rank == 0:
                    draw_sheet(session_options.out / SHEET_NAME, clips, title=title)

    def model(self) -> VideoMAEConfig:
        """The preset with what was chosen otherwise. Raises BadInput if the cubes do not tile the clip."""
        preset = PRESETS[self.preset]
        try:
            grid = dataclasses.replace(
                preset.grid,
                frames=preset.grid.frames if self.frames is None else self.frames,
                height_px=preset.grid.height_px if self.size_px is None else self.size_px,
                width_px=preset.grid.width_px if self.size_px is None else self.size_px,
            )
        except ValueError as error:
            raise BadInput(str(error)) from None
        encoder, decoder = (
            dataclasses.replace(stack, attention=self.attention, checkpointing=self.checkpointing)
            for stack in (preset.encoder, preset.decoder)
        )
        return dataclasses.replace(preset, grid=grid, encoder=encoder, decoder=decoder)

    def policy(self, model: VideoMAEConfig) -> ClipPolicy:
        """The clips that this model takes. Raises BadRequest for a size or stride out of its limits."""
        return ClipPolicy(
            sampling=Dense(frames=model.grid.frames, stride=self.stride_frames),
            crop=RandomResizedCrop(scale=self.crop_scale),
            width_px=model.grid.width_px,
            height_px=model.grid.height_px,
            hflip_probability=self.hflip,
            pixel_format=self.pixel_format,
        )

    def config(self, model: VideoMAEConfig, *, samples: int) -> dict[str, object]:
        """What decides which weights come out; options that are not here may change when a run resumes."""
        own = {option.name: getattr(self, option.name) for option in dataclasses.fields(self)}
        for name in ("root", "feed", "learning", "compute", "session", "attention", "checkpointing"):
            del own[name]
        shape = dataclasses.asdict(model)
        for stack in ("encoder", "decoder"):
            del shape[stack]["attention"], shape[stack]["checkpointing"]
        return {
            "recipe": _NAME,
            "samples": samples,
            "batch_clips": self.feed.batch_clips,
            "steps": self.session.steps,
            "seed": self.session.seed,
            "precision": self.compute.precision,
            **own,
            **dataclasses.asdict(self.learning),
            **{f"model.{part}": value for part, value in shape.items()},
        }
