"""Kinetics: masked pre-training and fine-tuning as AVION and VideoMAE published them, and the tutorial's schedule.

Where the authors' paper and code differ the code is followed, and the difference named.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.eval_options import EvalOptions
from trainer_client.training.augment.rule import AugmentOptions
from trainer_client.training.learning import LearningOptions
from trainer_client.training.recipes.clip_spec import ClipSpec
from trainer_client.training.recipes.model_spec import ClassifierModel, MaeModel, VideoEncoder
from trainer_client.training.recipes.recipe import How, Length, Recipe, What
from trainer_client.training.recipes.task_spec import ClassifySpec, MaeSpec
from trainer_client.training.session import SessionOptions

VIDEOMAE_HEAD_STD = 2e-5  # its 0.02, times its init_scale of 0.001
# rand-m7-n4-mstd0.5-inc1, each operation with timm's probability, and its erasing with noise in 2 to 33 % of a picture.
_AVIONS = AugmentOptions(
    rand_ops=4, rand_magnitude=7.0, rand_std=0.5, rand_share=0.5, erase=0.25, erase_area=(0.02, 1 / 3), erase_noise=True
)
_FINETUNED = VideoEncoder(family="videomae", frames=16, drop_path=0.1)
_CLIPS = ClipSpec(
    sampling="videomae_finetune", stride_frames=4, crop_scale=(0.08, 1.0), crop_ratio=(0.75, 4 / 3), hflip=0.5
)


def k400_mae_pretrain(root: Path, out: Path, annotations: Path) -> Recipe:
    """VideoMAE pre-training on Kinetics-400, ViT-B, as AVION runs it (Lion, 256 clips).

        framefeed train k400_mae_pretrain ROOT --out runs/mae --data.path k400/train.csv --nproc 4

    Cost: 583 GPU hours on 4 A5000, 800 epochs (AVION's table 5; VideoMAE's own code 995). Score: 80.0 top-1 and 94.5
    top-5 after k400_finetune.

    Sources: AVION docs/MODEL_ZOO.md and scripts/main_videomae_pretrain.py; VideoMAE (Tong et al. 2022). Lion (.9, .95),
    decay .05, 1.5e-4 x B/256 after 40 epochs from 1e-6 x B/256, cosine to 1e-5 x B/256, 4 x 64 clips, 800 epochs, 16
    frames 4 apart with its jitter, VideoMAE's crop of 4 sizes at 13 places, 90 % tubes, decoder of 4 blocks, ImageNet's
    normalisation, no clipping of gradients. Sources differ: VideoMAE has AdamW and 2,048 clips (--optimizer adamw
    --batch-clips 2048 --sampling videomae_dense), AVION's figure 7 implies 512; VideoMAE's paper flips clips, its code
    and AVION's do not. Deviation: bf16 for fp16.
    """
    epochs = 800
    return Recipe(
        name="k400_mae_pretrain",
        what=What(
            model=MaeModel(preset="base"),
            task=MaeSpec(mask_ratio=0.9, mask_shape="tube"),
            data=DataSpec(kind="kinetics", path=annotations),
            clips=ClipSpec(sampling="avion_dense", stride_frames=4, crop="multi_scale", hflip=0.0),
            learning=LearningOptions(
                optimizer="lion",
                base_lr=1.5e-4,
                start_lr=1e-6,
                end_lr=1e-5,
                warmup=40 / epochs,
                weight_decay=0.05,
                betas=(0.9, 0.95),
                clip_norm=0.0,
            ),
            length=Length(batch_clips=64 * 4, epochs=epochs),
        ),
        how=How(root=root, session=SessionOptions(out=out)),
    )


def k400_finetune(root: Path, out: Path, annotations: Path) -> Recipe:
    """Fine-tuning of a masked autoencoder on Kinetics-400, ViT-B, as AVION runs it.

        framefeed train k400_finetune ROOT --out runs/k400 --data.path k400 --init-from runs/mae --nproc 8

    Cost: not published (8 A5000). Score: 80.0 top-1 and 94.5 top-5 of 5 x 3 views (VideoMAE's own code 80.0 and 94.4).

    Sources: AVION docs/MODEL_ZOO.md and scripts/main_videomae_finetune.py. AdamW (.9, .999), decay .05, 1.5e-3 x B/256
    after 5 epochs from 1e-6 x B/256, cosine to 1e-6 x B/256, each layer at .75 of the rate of the one above, 8 x 32
    clips, 100 epochs, 16 frames 4 apart, drop path 0 to .1, crop .08 to 1, flip .5, RandAugment of 4 operations of
    strength 7 ± .5, a quarter of the clips erased in a box of noise, mixup .8 or CutMix 1, half each, smoothing .1,
    head from N(0, 2e-5), no moving average, no clipping, scored every epoch by one view (published scores are of 5 x 3,
    by framefeed eval). Sources differ: VideoMAE has 1e-3, 8 x 64 GPU clips and repeated augmentation in its best runs.
    Deviations: bf16 for fp16; partners of mixup are neighbours of the plan and CutMix cuts rows and columns (AVION:
    frames and rows).
    """
    epochs = 100
    return Recipe(
        name="k400_finetune",
        what=What(
            model=ClassifierModel(encoder=_FINETUNED, heads={"label": 400}, head_std=VIDEOMAE_HEAD_STD),
            task=ClassifySpec(smoothing=0.1, mixup=True),
            data=DataSpec(kind="kinetics", path=annotations),
            clips=_CLIPS,
            augment=_AVIONS,
            learning=LearningOptions(
                base_lr=1.5e-3,
                start_lr=1e-6,
                end_lr=1e-6,
                warmup=5 / epochs,
                weight_decay=0.05,
                betas=(0.9, 0.999),
                layer_decay=0.75,
                clip_norm=0.0,
            ),
            length=Length(batch_clips=32 * 8, epochs=epochs),
        ),
        how=How(
            root=root,
            session=SessionOptions(out=out, keep_best="max:val/top1"),
            evaluation=EvalOptions(eval_epochs=1),
        ),
    )


def k700_finetune(root: Path, out: Path, annotations: Path) -> Recipe:
    """Fine-tuning on Kinetics-700 on one GPU of 32 GB, with the schedule of the VideoMAE tutorial.

        framefeed train k700_finetune ROOT --out runs/k700 --data.path k700 --init-from runs/mae

    Cost: the tutorial's 48 hours on one RTX 5090, without a source. Score: its 82.4 top-1, without a source either.

    Source: the tutorial (seed document): AdamW, 1.5e-4, decay .05, 10 epochs of warm-up, cosine to 1e-6, 200 to 400
    epochs (200 here), batches of 8 to 16 (16 here), gradients clipped to norm 1, 16 frames over the whole clip at 224
    px, random crop, flip, colour jitter and temporal jitter. What it does not say is k400_finetune's: layer-wise rates,
    drop path, smoothing and head. Deviations: strengths of the colour jitter are ours (.4, .4, .4, .1), it says none;
    no mixup, which it does not have; bf16 with fp32 weights for its mixed precision.
    """
    epochs = 200
    return Recipe(
        name="k700_finetune",
        what=What(
            model=ClassifierModel(encoder=_FINETUNED, heads={"label": 700}, head_std=VIDEOMAE_HEAD_STD),
            task=ClassifySpec(smoothing=0.1, mixup=False),
            data=DataSpec(kind="kinetics", path=annotations),
            clips=replace(_CLIPS, sampling="segments"),
            augment=AugmentOptions(jitter=1.0),
            learning=LearningOptions(
                lr=1.5e-4,
                start_lr=1e-6,
                end_lr=1e-6,
                warmup=10 / epochs,
                weight_decay=0.05,
                betas=(0.9, 0.999),
                layer_decay=0.75,
                clip_norm=1.0,
            ),
            length=Length(batch_clips=16, epochs=epochs),
        ),
        how=How(root=root, session=SessionOptions(out=out)),
    )
