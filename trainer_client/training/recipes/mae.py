"""VideoMAE pre-training on any folder of videos."""

from __future__ import annotations

from pathlib import Path

from trainer_client.training.learning import LearningOptions
from trainer_client.training.recipes.clip_spec import ClipSpec
from trainer_client.training.recipes.model_spec import MaeModel
from trainer_client.training.recipes.recipe import How, Length, Recipe, What, Windows
from trainer_client.training.recipes.task_spec import MaeSpec
from trainer_client.training.session import SessionOptions


def mae(root: Path, out: Path) -> Recipe:
    """VideoMAE on any videos, cut into windows; without annotations.

        framefeed train mae ROOT --out runs/mae    # decodes on spare CPUs; or:
        framefeed serve ROOT                       # on boxes that see the root
        framefeed train mae ROOT --servers tcp://127.0.0.1:5555 --out runs/mae

    Model, mask and optimizer are VideoMAE's (Tong et al. 2022, table 7): ViT-B, 16 frames 4 apart at 224 px, 90 % tubes
    masked; crops, flips, warm-up and clipping are ours, for videos that are nobody's benchmark: `k400_mae_pretrain` is
    the authors'. Score: none, it has no labels.

    What runs in a minute on two CPU cores (AMD EPYC, both servers on the same cores), as `framefeed demo` does:

        framefeed train mae ROOT --servers URL URL --out runs/tiny \\
            --preset tiny --mask-ratio 0.5 --batch-clips 4 \\
            --lr 1.5e-3 --precision fp32 --threads 1 --steps 960

    It costs 60 ms a step on one thread; the loss falls from 1.21 to 0.88 on three minutes of synthetic video.
    """
    return Recipe(
        name="mae",
        what=What(
            model=MaeModel(),
            task=MaeSpec(),
            data=Windows(),
            clips=ClipSpec(),
            learning=LearningOptions(),
            length=Length(steps=10_000),
        ),
        how=How(root=root, session=SessionOptions(out=out)),
    )
