"""From what a recipe says to what trains: data, tokenizer, model and task; knows their specs, not how a run goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn

from framefeed.errors import BadInput
from framefeed.show_value import one_line, show_value
from framefeed_models.classifier import ClassifierConfig
from framefeed_models.cmae import CMAEConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.encoder import EncoderConfig
from framefeed_models.pixel_norm import IMAGENET, PixelNorm
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.config_json import ModelConfig
from framefeed_models.weights.init_from import InitReport, init_from
from framefeed_models.weights.traits import encoder_of
from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.annotation import labels_of, relevancy_of, text_of
from trainer_client.feed.buckets import Buckets, into_buckets
from trainer_client.samples import Sample
from trainer_client.source_policies import SourcePolicies
from trainer_client.text.clip_bpe import ClipTokenizer
from trainer_client.text.narration_bpe import NarrationTokenizer
from trainer_client.text.tokens import Tokenizer
from trainer_client.training.augment.mixup import MixRule
from trainer_client.training.recipes.clip_spec import ClipSpec
from trainer_client.training.recipes.model_spec import ClassifierModel, CmaeModel, Kernels, MaeModel, TowersModel
from trainer_client.training.recipes.recipe import Init, What
from trainer_client.training.recipes.run_data import RunData
from trainer_client.training.recipes.task_spec import (
    ClassifySpec,
    CmaeSpec,
    ContrastiveSpec,
    MaeSpec,
    RankingSpec,
    TextSpec,
)
from trainer_client.training.tasks.classify import ClassifyTask, Targets
from trainer_client.training.tasks.cmae import CmaeTask, ViewRule
from trainer_client.training.tasks.contrastive import ContrastiveTask, Texts
from trainer_client.training.tasks.mae import MaeTask
from trainer_client.training.tasks.ranking import Margin, RankingTask
from trainer_client.training.tasks.task import ClipInputs, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What decides the weights, ready to make a task: `tokenizer` where there are texts, and the model."""

    what: What
    data: RunData
    tokenizer: Tokenizer | None
    model: ModelConfig

    @property
    def norm(self) -> PixelNorm:
        """How this run's pixels are normalised."""
        model = self.what.model
        return model.encoder.norm if isinstance(model, TowersModel | ClassifierModel) else IMAGENET

    def policy(self) -> ClipPolicy | Buckets:
        """The clips that the task takes, in buckets if they are of many shapes; blocks then as `into_buckets`.

        Raises BadRequest and BadInput for values that make no clips.
        """
        what, grid = self.what, encoder_of(self.model).grid
        if not what.clips.buckets:
            return self._clips_of(frames=grid.frames, height_px=grid.height_px, width_px=grid.width_px)
        rule = what.clips.bucket_rule(grid, at_least=what.length.batch_clips)
        return into_buckets(self.data.dataset, self.data.manifest, rule, self._clips_of)

    def _clips_of(self, *, frames: int, height_px: int, width_px: int) -> ClipPolicy:
        """Clips that give the model so many frames, each data set's by its own rule."""
        what, task = self.what, self.what.task
        longer = what.augment.shift_frames + (task.longest_shift if isinstance(task, CmaeSpec) else 0)
        shape = {"frames": frames + longer, "height_px": height_px, "width_px": width_px}
        own, *others = (rule.policy(**shape) for rule in what.rules)
        return SourcePolicies.of(own, *others) if others else own

    def task(self, *, kernels: Kernels, device: torch.device) -> Task[ClipInputs]:
        """The task with fresh weights, by torch's generator. Raises BadInput for values that make none, and for a model
        that does not fit in memory."""
        with _in_memory():
            return self._made(kernels, device)

    def _made(self, kernels: Kernels, device: torch.device) -> Task[ClipInputs]:
        config, spec = kernels.on(self.model), self.what.task
        made: object
        if isinstance(spec, MaeSpec):
            assert isinstance(config, VideoMAEConfig)
            made = MaeTask(config, mask_ratio=spec.mask_ratio, mask_shape=spec.mask_shape, device=device)
        elif isinstance(spec, CmaeSpec):
            assert isinstance(config, CMAEConfig)
            rule = ViewRule(
                mask_ratio=spec.mask_ratio,
                mask_shape=spec.mask_shape,
                longest_shift=spec.longest_shift,
                momentum=spec.momentum,
            )
            made = CmaeTask(config, rule, device=device)
        elif isinstance(spec, ClassifySpec):
            assert isinstance(config, ClassifierConfig)
            made = ClassifyTask(config, _targets(spec), device=device, norm=self.norm)
        else:
            assert isinstance(config, DualEncoderConfig)
            assert self.tokenizer is not None
            texts = Texts(text_of=lambda sample, seed: text_of(sample.target, seed), tokenizer=self.tokenizer)
            if isinstance(spec, RankingSpec):
                margin = Margin(width=spec.margin, weight_of=_relevancy if spec.adaptive else None)
                made = RankingTask(config, texts, device=device, margin=margin, norm=self.norm)
            else:
                made = ContrastiveTask(config, texts, device=device, norm=self.norm, local_loss=spec.local_loss)
        return cast("Task[ClipInputs]", made)  # what its prepare makes goes to its own rows and loss alone


@contextmanager
def _in_memory() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "t allocate memory" not in str(error):
            raise
        why = one_line(str(error).partition("\n")[0])
        raise BadInput(f"recipe: the model does not fit in memory ({why}); wanted a smaller one") from None


def build(what: What, data: RunData) -> Built:
    """Choose the tokenizer and configure the model. Blocks while a tokenizer is trained.

    Raises BadInput for a task and a model that do not fit each other, data without what the task needs, and values that
    make no network.
    """
    model, task = what.model, what.task
    _check_shapes(what)
    if what.length.batch_clips < 2 and isinstance(task, CmaeSpec | ContrastiveSpec | RankingSpec):
        raise BadInput("--batch-clips is 1, and this task compares the clips of a batch; wanted 2 or more")
    if isinstance(task, MaeSpec) and isinstance(model, MaeModel):
        return Built(what=what, data=data, tokenizer=None, model=model.config())
    if isinstance(task, CmaeSpec) and isinstance(model, CmaeModel):
        return Built(what=what, data=data, tokenizer=None, model=model.config())
    if isinstance(task, ClassifySpec) and isinstance(model, ClassifierModel):
        if not (model.heads or data.classes):
            raise BadInput("recipe: heads are {} and the data set names no classes, wanted --heads NAME CLASSES …")
        config = model.config(data.classes)
        _check_labels(config.heads, data)
        if set(config.heads.values()) == {1}:
            raise BadInput(f"recipe: {', '.join(config.heads)} has one class, wanted two or more to tell apart")
        config = replace(config, encoder=_of_shapes(config.encoder, what.clips))
        return Built(what=what, data=data, tokenizer=None, model=config)
    if isinstance(task, ContrastiveSpec | RankingSpec) and isinstance(model, TowersModel):
        if isinstance(task, RankingSpec) and task.adaptive and not data.has_relevancies:
            raise BadInput("--adaptive needs relevancies, which the data set has not; wanted --data.kind ek100_mir")
        tokenizer = _tokenizer(task.text, data)
        towers = model.config(tokenizer.layout)
        towers = replace(towers, video=_of_shapes(towers.video, what.clips))
        return Built(what=what, data=data, tokenizer=tokenizer, model=towers)
    raise BadInput(f"recipe: task is {type(task).__name__} and model {type(model).__name__}, which do not fit")


def _check_shapes(what: What) -> None:
    """Raise BadInput for clips of several shapes or lengths where model, task or augmentation want one."""
    pads, model = any(rule.pads for rule in what.rules), what.model
    if not (pads or what.clips.buckets):
        return
    if not isinstance(model, TowersModel | ClassifierModel) or model.encoder.family == "timesformer":
        wanting = "--short pad" if pads else "--buckets"
        raise BadInput(
            f"{wanting}: this model's masks or attention are of one number of cubes; wanted a classifier or towers "
            "with --family clip or videomae"
        )
    refused = {
        "--mixup": isinstance(what.task, ClassifySpec) and what.task.mixup,
        "--shift-frames": what.augment.shift_frames > 0,
        "--jitter-frames": what.augment.jitter_frames > 0,
        "--patch-dropout": model.encoder.patch_dropout > 0,
    }
    if pads and (also := [name for name, is_on in refused.items() if is_on]):
        raise BadInput(f"--short pad with {also[0]}, which takes padding for frames; wanted one of the two")


def _of_shapes(encoder: EncoderConfig, clips: ClipSpec) -> EncoderConfig:
    """The encoder for clips of many shapes, if they are to be in buckets."""
    return replace(encoder, any_shape=True) if clips.buckets and isinstance(encoder, ViTConfig) else encoder


def fill(model: nn.Module, init: Init, *, norm: PixelNorm) -> InitReport | None:
    """Take the first weights from a checkpoint, if the recipe names one. Raises BadInput, in one line, for one that is
    not for this model, its activation, eps or pixels."""
    if init.init_from is None:
        return None
    try:
        return init_from(init.init_from, model, pixels=norm, accept=init.accept, averaged=init.averaged)
    except ValueError as error:
        raise BadInput(str(error)) from None


def _check_labels(heads: Mapping[str, int], data: RunData) -> None:
    for name, classes in heads.items():
        largest = data.labels(name)
        if largest is None:
            known = ", ".join(data.classes) or "none"
            raise BadInput(f"recipe: heads have {show_value(name)}, which is no label of the data set; it has {known}")
        if largest >= classes:
            raise BadInput(
                f"label {show_value(name)} of the data set goes up to {largest}, wanted 0 to {classes - 1}, as "
                "heads say"
            )


def _tokenizer(text: TextSpec, data: RunData) -> Tokenizer:
    if text.tokenizer == "clip":
        return ClipTokenizer(text.tokenizer_file)
    if text.tokenizer_file is not None:
        return NarrationTokenizer.load(text.tokenizer_file)
    return NarrationTokenizer.train(data.texts(), vocabulary=text.vocabulary)


def _relevancy(sample: Sample, seed: int) -> float:
    return relevancy_of(sample.target, seed)


def _targets(spec: ClassifySpec) -> Targets:
    mix = None
    if spec.mixup:
        mix = MixRule(mixup_alpha=spec.mixup_alpha, cutmix_alpha=spec.cutmix_alpha, cutmix_share=spec.cutmix_share)
    return Targets(labels_of=lambda sample: labels_of(sample.target), smoothing=spec.smoothing, mix=mix)
