"""All five tasks on models that take milliseconds, and runs of them over made batches in any split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from framefeed_models.block import StackConfig
from framefeed_models.classifier import ClassifierConfig
from framefeed_models.cmae import CMAEConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.text import TextConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.vit import ViTConfig
from tests.unit.trainer.small_run import make_batch
from trainer_client.feed.batch import Batch
from trainer_client.samples import Sample
from trainer_client.text.tokens import TokenLayout, TokenRows
from trainer_client.training.augment.mixup import MixRule
from trainer_client.training.average import Average
from trainer_client.training.backward import Passes
from trainer_client.training.device_feed import to_device
from trainer_client.training.learning import Learning
from trainer_client.training.optimizers import OptimizerConfig, build_optimizer
from trainer_client.training.parallel import Parallel, ParallelName
from trainer_client.training.precision import Precision, PrecisionName
from trainer_client.training.ranks import Ranks
from trainer_client.training.run_state import Stored, load_run, tensors_of
from trainer_client.training.schedules import WarmupCosine
from trainer_client.training.step import Run, train_step
from trainer_client.training.tasks.classify import ClassifyTask, Targets
from trainer_client.training.tasks.cmae import CmaeTask, ViewRule
from trainer_client.training.tasks.contrastive import ContrastiveTask, Texts
from trainer_client.training.tasks.mae import MaeTask
from trainer_client.training.tasks.ranking import Margin, RankingTask

CPU = torch.device("cpu")
GLOBAL, FRAMES, SIDE_PX = 8, 4, 16
GRID = TubeletGrid(frames=FRAMES, height_px=SIDE_PX, width_px=SIDE_PX, tubelet_frames=2, patch_px=4)
STACK = StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0)
HEADS = {"verb": 5, "noun": 7}


class NumberTokenizer:
    """Texts of numbers, one token each; the end has the largest."""

    layout = TokenLayout(vocabulary=32, context=6)

    def encode(self, texts: Sequence[str]) -> TokenRows:
        return self.layout.rows([[int(word) for word in text.split()] for text in texts])


def number_of(sample: Sample) -> int:
    """What a made sample is of."""
    return int(sample.video.removeprefix("v"))


def words_of(sample: Sample, seed: int) -> str:
    del seed
    n = number_of(sample)
    return " ".join(str(1 + word) for word in (n % 7, n % 11, n % 5)[: 1 + n % 3])


def labels_of(sample: Sample) -> dict[str, int]:
    return {"verb": number_of(sample) % 5, "noun": number_of(sample) % 7}


def relevance_of(sample: Sample, seed: int) -> float:
    return 0.5 + 0.5 * (number_of(sample) % 2)


def make_share(step: int, ranks: Ranks, *, frames: int) -> Batch:
    """This rank's part of global batch `step`, as the plan divides it."""
    whole, size = make_batch(step, clips=GLOBAL, frames=frames, side_px=SIDE_PX), GLOBAL // ranks.world
    rows = slice(ranks.rank * size, (ranks.rank + 1) * size)
    samples = tuple(Sample(video=f"v{step * GLOBAL + i}", start_s=0.0, end_s=1.0) for i in range(GLOBAL))
    whole = dataclasses.replace(whole, samples=samples, positions=np.arange(step * GLOBAL, (step + 1) * GLOBAL))
    # Clips that differ in more than noise, as videos do: batch norm divides by how far their features are apart.
    rng = np.random.default_rng(step)
    noise, grounds = rng.integers(0, 50, whole.pixels.shape), rng.integers(0, 190, (GLOBAL, 1, 1, 1))
    whole = dataclasses.replace(whole, pixels=(noise + grounds).astype(np.uint8))
    names = {field.name for field in dataclasses.fields(Batch)} - {"step", "stand_ins"}
    return dataclasses.replace(whole, **{name: getattr(whole, name)[rows] for name in names})


def _vit(*, drop_path: float = 0.0) -> ViTConfig:
    return ViTConfig(grid=GRID, stack=dataclasses.replace(STACK, drop_path=drop_path, drop_path_rule="constant"))


def _towers() -> DualEncoderConfig:
    text = TextConfig(stack=dataclasses.replace(STACK, causal=True), vocabulary=32, context=6)
    return DualEncoderConfig(video=_vit(), text=text, joint=16)


def _mae() -> VideoMAEConfig:
    return VideoMAEConfig(grid=GRID, encoder=STACK, decoder=dataclasses.replace(STACK, depth=1), positions="grid")


# Biases that a batch norm takes away again: their true gradient is zero, and Adam makes steps of its rounding noise.
NO_GRADIENT = ("heads.projector.3.bias", "branches.feature_decoder.head.bias", "branches.feature_decoder.norm.bias")
_TEXTS = Texts(text_of=words_of, tokenizer=NumberTokenizer())
TASKS: dict[str, Callable[[torch.device], Any]] = {
    "mae": lambda device: MaeTask(_mae(), mask_ratio=0.5, device=device),
    "contrastive": lambda device: ContrastiveTask(_towers(), _TEXTS, device=device),
    "contrastive-local": lambda device: ContrastiveTask(_towers(), _TEXTS, device=device, local_loss=True),
    "ranking": lambda device: RankingTask(_towers(), _TEXTS, device=device),
    "ranking-adaptive": lambda device: RankingTask(
        _towers(), _TEXTS, device=device, margin=Margin(width=0.4, weight_of=relevance_of)
    ),
    "classify": lambda device: ClassifyTask(
        ClassifierConfig(encoder=_vit(), heads=HEADS), Targets(labels_of=labels_of, smoothing=0.1), device=device
    ),
    "classify-random": lambda device: ClassifyTask(
        ClassifierConfig(encoder=_vit(drop_path=0.1), heads=HEADS, dropout=0.5),
        Targets(labels_of=labels_of, smoothing=0.1, mix=MixRule()),
        device=device,
    ),
    "cmae": lambda device: CmaeTask(
        # Wide heads, as the authors' are: over a few channels batch norm enlarges what float32 rounds.
        CMAEConfig(mae=_mae(), feature=dataclasses.replace(STACK, depth=1), hidden=128, joint=64),
        ViewRule(mask_ratio=0.5, longest_shift=2, momentum=0.9),
        device=device,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How a run is divided."""

    ranks: Ranks = Ranks()  # noqa: RUF009 - frozen
    parallel: ParallelName = "ddp"
    micro_clips: int | None = None
    precision: PrecisionName = "fp32"


def make_run(
    name: str, split: Split, *, optimizer: str = "adamw", steps: int = 20, device: torch.device = CPU
) -> Run[Any]:
    """A run of a task from the same first weights, whatever the split."""
    torch.manual_seed(3)
    task = TASKS[name](device)
    for known, parameter in task.model.named_parameters():
        if known in NO_GRADIENT:
            parameter.requires_grad_(False)
    passes = Passes(
        precision=Precision(split.precision, device=device),
        parallel=Parallel(name=split.parallel, ranks=split.ranks),
        micro_clips=split.micro_clips,
    )
    task.trunk = passes.parallel.spread(task.model, task.trunk)
    config = OptimizerConfig(name=optimizer)  # type: ignore[arg-type]
    schedule = WarmupCosine(peak=1e-3, warmup_steps=2, total_steps=steps)
    learning = Learning(optimizer=build_optimizer(task.model, config), schedule=schedule, clip_norm=1.0)
    average = Average(task.model, decay=0.9)
    return Run(task=task, learning=learning, passes=passes, average=average, seed=5)


def take(run: Run[Any], *, until: int, after: Stored | None = None) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of the steps up to `until`, and the run's tensors then, whole and no longer live. A collective."""
    if after is not None:
        load_run(run, after)
    ranks = run.passes.parallel.ranks
    frames = FRAMES + 2 if isinstance(run.task, CmaeTask) else FRAMES
    losses = list[float]()
    while run.step < until:
        losses.append(train_step(run, to_device(make_share(run.step, ranks, frames=frames), CPU)).read().loss)
    return losses, {name: whole(tensor) for name, tensor in tensors_of(run).items()}


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Between tensors of the same names."""
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def whole(tensor: Tensor) -> Tensor:
    """A copy of a live tensor, put together where it is divided: a collective there."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
