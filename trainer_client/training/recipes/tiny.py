"""Small twins of the recipes, for two CPU cores: the same tasks over scenes of a second that are made in seconds.

    python -m decode_server.chunking.synthetic_actions scenes && framefeed index scenes
    framefeed train contrastive_tiny scenes --out runs/tiny

Servers are this machine's own. The scenes' lines, train.jsonl, are where the videos are, unless --data.path says else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer_client.datasets.spec import DataSpec
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.learning import LearningOptions
from trainer_client.training.recipes.clip_spec import ClipSpec
from trainer_client.training.recipes.model_spec import ClassifierModel, CmaeModel, MaeModel, TowersModel, VideoEncoder
from trainer_client.training.recipes.recipe import How, Length, Recipe, What
from trainer_client.training.recipes.task_spec import (
    ClassifySpec,
    CmaeSpec,
    ContrastiveSpec,
    MaeSpec,
    RankingSpec,
    TaskSpec,
    TextSpec,
)
from trainer_client.training.session import SessionOptions

_FRAMES, _SIDE_PX = 8, 32
_CLIPS = ClipSpec(stride_frames=2, crop_scale=(0.8, 1.0), hflip=0.0)  # a mirror turns left into right
_ENCODER = VideoEncoder(family="videomae", size="tiny", frames=_FRAMES, size_px=_SIDE_PX, patch_px=8)
_TOWERS = TowersModel(encoder=_ENCODER, text_width=128, text_depth=2, joint=64)
_TEXTS = TextSpec(tokenizer="narrations", vocabulary=512)
_MASKED, _PAIRS = Length(batch_clips=32, steps=1000), Length(batch_clips=32, steps=800)


def mae_tiny(root: Path, out: Path, annotations: Path) -> Recipe:
    """VideoMAE at 8 x 32 x 32 pixels, on two CPU cores; twin of k400_mae_pretrain.

        framefeed train mae_tiny scenes --out runs/tiny --data.path scenes

    Cost: 0.11 s of one CPU core a step. Score: none is published. Numbers: ours, small enough for two cores.
    """
    model = MaeModel(preset="tiny", size_px=_SIDE_PX)
    # Grounds stand still: a place that is hidden at all times says nothing of what passes it.
    task = MaeSpec(mask_ratio=0.75, mask_shape="random")
    return _tiny("mae_tiny", model, task, length=_MASKED, root=root, out=out, annotations=annotations)


def cmae_tiny(root: Path, out: Path, annotations: Path) -> Recipe:
    """CMAE-V at 8 x 32 x 32 pixels, on two CPU cores; twin of cmae_pretrain.

        framefeed train cmae_tiny scenes --out runs/tiny --data.path scenes

    Cost: 0.29 s of one CPU core a step. Score: none is published. Numbers: ours, small enough for two cores.
    """
    model = CmaeModel(preset="tiny", size_px=_SIDE_PX, feature_width=128, feature_heads=4, hidden=256, joint=64)
    task = CmaeSpec(mask_ratio=0.75, mask_shape="random", longest_shift=1, momentum=0.99)
    return _tiny("cmae_tiny", model, task, length=_MASKED, root=root, out=out, annotations=annotations)


def contrastive_tiny(root: Path, out: Path, annotations: Path) -> Recipe:
    """A dual encoder at 8 x 32 x 32 pixels with captions, on two CPU cores; twin of ego4d_contrastive_vitb.

        framefeed train contrastive_tiny scenes --out runs/tiny --data.path scenes

    Cost: 0.24 s of one CPU core a step. Score: none is published. Numbers: ours, small enough for two cores.
    """
    task = ContrastiveSpec(text=_TEXTS)
    return _tiny("contrastive_tiny", _TOWERS, task, length=_PAIRS, root=root, out=out, annotations=annotations)


def ranking_tiny(root: Path, out: Path, annotations: Path) -> Recipe:
    """Retrieval by a margin at 8 x 32 x 32 pixels with captions, on two CPU cores; twin of ek100_mir_finetune.

        framefeed train ranking_tiny scenes --out runs/tiny --data.path scenes --init-from runs/contrastive

    Cost: 0.23 s of one CPU core a step. Score: none is published. Numbers: ours, small enough for two cores.
    """
    task = RankingSpec(text=_TEXTS)
    return _tiny("ranking_tiny", _TOWERS, task, length=_PAIRS, root=root, out=out, annotations=annotations)


def classify_tiny(root: Path, out: Path, annotations: Path) -> Recipe:
    """Which way something moves, at 8 x 32 x 32 pixels, on two CPU cores; twin of ek100_cls_finetune.

        framefeed train classify_tiny scenes --out runs/tiny --data.path scenes

    Cost: 0.13 s of one CPU core a step. Score: docs/learning.md. Numbers: ours, small enough for two cores.
    """
    model = ClassifierModel(encoder=replace(_ENCODER, drop_path=0.05), dropout=0.1)
    length = Length(batch_clips=16, steps=900)  # small steps: what moves is found after so many, not so many clips
    return _tiny("classify_tiny", model, ClassifySpec(), length=length, root=root, out=out, annotations=annotations)


def _tiny(
    name: str,
    model: MaeModel | CmaeModel | TowersModel | ClassifierModel,
    task: TaskSpec,
    *,
    length: Length,
    root: Path,
    out: Path,
    annotations: Path,
) -> Recipe:
    return Recipe(
        name=name,
        what=What(
            model=model,
            task=task,
            data=DataSpec(kind="table", path=annotations),
            clips=_CLIPS,
            learning=LearningOptions(lr=1e-3, end_lr=1e-5, warmup=0.05, weight_decay=0.05, betas=(0.9, 0.98)),
            length=length,
        ),
        how=How(
            root=root,
            compute=ComputeOptions(device="cpu", precision="fp32", threads=1),
            session=SessionOptions(out=out, metrics_port=0),
        ),
    )
