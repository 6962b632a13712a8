"""Masked pre-training beyond Kinetics: VideoMAE on Something-Something V2, and CMAE-V.

Where the authors' paper and code differ the code is followed, and the difference named.
"""

from __future__ import annotations

from pathlib import Path

from trainer_client.datasets.spec import DataSpec
from trainer_client.training.learning import LearningOptions
from trainer_client.training.recipes.clip_spec import ClipSpec
from trainer_client.training.recipes.model_spec import CmaeModel, MaeModel
from trainer_client.training.recipes.recipe import How, Length, Recipe, What
from trainer_client.training.recipes.task_spec import CmaeSpec, MaeSpec
from trainer_client.training.session import SessionOptions

_WARMUP_EPOCHS = 40


def ssv2_mae_pretrain(root: Path, out: Path, annotations: Path) -> Recipe:
    """VideoMAE pre-training on Something-Something V2, ViT-B.

        framefeed train ssv2_mae_pretrain ROOT --out runs/ssv2 --data.path train.csv --nproc 8 --micro-clips 64

    Cost: not published (64 GPUs). Score: 70.6 top-1 and 92.6 top-5 after fine-tuning, 2 x 3 views.

    Sources: VideoMAE's script for ViT-B, 2400 epochs, and MODEL_ZOO.md: AdamW (.9, .95), decay .05, 1.5e-4 x B/256
    after 40 epochs from 1e-6 x B/256, cosine to 1e-5 x B/256, 64 x 32 clips, 2400 epochs (its 2401 saves the last), 16
    frames 2 apart, its crop of 4 sizes at 13 places, 90 % tubes, no flip (left and right are classes), no clipping of
    gradients. Deviation: bf16 for fp16.
    """
    epochs = 2400
    return Recipe(
        name="ssv2_mae_pretrain",
        what=What(
            model=MaeModel(preset="base"),
            task=MaeSpec(mask_ratio=0.9, mask_shape="tube"),
            data=DataSpec(kind="ssv2", path=annotations),
            clips=ClipSpec(sampling="videomae_dense", stride_frames=2, crop="multi_scale", hflip=0.0),
            learning=LearningOptions(
                base_lr=1.5e-4,
                start_lr=1e-6,
                end_lr=1e-5,
                warmup=_WARMUP_EPOCHS / epochs,
                weight_decay=0.05,
                betas=(0.9, 0.95),
                clip_norm=0.0,
            ),
            length=Length(batch_clips=32 * 64, epochs=epochs),
        ),
        how=How(root=root, session=SessionOptions(out=out)),
    )


def cmae_pretrain(root: Path, out: Path, annotations: Path) -> Recipe:
    """CMAE-V pre-training on Kinetics-400, ViT-B: masked autoencoding and contrast between two moments.

        framefeed train cmae_pretrain ROOT --out runs/cmae --data.path k400/train.csv --nproc 8 --micro-clips 32

    Cost: not published. Score: 82.2 top-1 on Kinetics-400 after fine-tuning, by the authors' hybrid encoder, which is
    not this one.

    Sources: CMAE-V (Lu et al. 2023), which keeps CMAE's architecture and loss, and for these CMAE's configuration of
    ViT-B (Huang et al. 2022): AdamW (.9, .95), decay .05, 1.5e-4 x B/256 after 40 epochs from a ten-thousandth of it,
    cosine to 0, heads 1536 and 256 wide, feature decoder of 2 blocks 512 wide, temperature .07, the contrast times
    2 x .07 (the paper's formula has no such factor), momentum .996. What is video's is VideoMAE's: 16 frames 4 apart,
    90 % tubes, its crop, 800 epochs, decoder of 4 blocks (CMAE: 65 %, 8 blocks). Deviations: the temporal shift's range
    is in no source at hand (2 frames of the clip here); 1,024 clips, as no source at hand has the video batch.
    """
    epochs = 800
    return Recipe(
        name="cmae_pretrain",
        what=What(
            model=CmaeModel(preset="base"),
            task=CmaeSpec(mask_ratio=0.9, mask_shape="tube", longest_shift=2, momentum=0.996),
            data=DataSpec(kind="kinetics", path=annotations),
            clips=ClipSpec(sampling="videomae_dense", stride_frames=4, crop="multi_scale", hflip=0.0),
            learning=LearningOptions(
                base_lr=1.5e-4,
                start_lr=1.5e-8,
                end_lr=0.0,
                warmup=_WARMUP_EPOCHS / epochs,
                weight_decay=0.05,
                betas=(0.9, 0.95),
                clip_norm=0.0,
            ),
            length=Length(batch_clips=1024, epochs=epochs),
        ),
        how=How(root=root, session=SessionOptions(out=out)),
    )
