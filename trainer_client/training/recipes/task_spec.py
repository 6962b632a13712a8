"""What a recipe says of its task; knows values that are checked, not tensors, models or data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from framefeed.errors import BadInput
from trainer_client.training.augment.masking import MaskShape


@dataclass(frozen=True, slots=True, kw_only=True)
class MaeSpec:
    """Masked autoencoding (Tong et al. 2022)."""

    mask_ratio: float = 0.9
    """Share of the clip that is hidden from the encoder; 0.5 to 0.95 make sense."""
    mask_shape: MaskShape = "tube"
    """What is hidden as a whole: tube, a place through all frames; random, a single cube; frame, all places of one."""

    def __post_init__(self) -> None:
        _check_mask_ratio(self.mask_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class CmaeSpec:
    """Masked autoencoding and contrast between two moments of a clip (Lu et al. 2023)."""

    mask_ratio: float = 0.9
    """Share of the clip that is hidden from the encoder; 0.5 to 0.95 make sense."""
    mask_shape: MaskShape = "tube"
    """What is hidden as a whole: tube, a place through all frames; random, a single cube; frame, all places of one."""
    longest_shift: int = 2
    """The second view begins up to so many frames of the clip later; clips are so much longer than the model's."""
    momentum: float = 0.996
    """Share of itself that the target network keeps in a step."""

    def __post_init__(self) -> None:
        _check_mask_ratio(self.mask_ratio)
        if self.longest_shift < 0:
            raise BadInput(f"--longest-shift is {self.longest_shift}, wanted 0 or more frames")
        if not 0 <= self.momentum <= 1:
            raise BadInput(f"--momentum is {self.momentum:g}, wanted 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """How a sample's text becomes tokens."""

    tokenizer: Literal["clip", "narrations"] = "clip"
    """clip: its vocabulary, for its weights. narrations: one that is trained on the data's own texts when a run begins,
    and kept as OUT/tokenizer.json."""
    vocabulary: int = 8192
    """Most tokens of one that is trained on narrations."""
    tokenizer_file: Path | None = None
    """A vocabulary of CLIP's, or a tokenizer.json of an earlier run. Default: open_clip_torch's, or trained."""


_Text = Annotated[TextSpec, tyro.conf.arg(name="")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveSpec:
    """Clips against texts, every other pair of the batch a negative (Radford et al. 2021)."""

    text: _Text = field(default_factory=TextSpec)
    local_loss: bool = False
    """Each process compares its own rows alone with the columns of all: less work, the same gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSpec:
    """Clips against texts by a margin, for retrieval with several right answers (EPIC-Kitchens-100)."""

    text: _Text = field(default_factory=TextSpec)
    margin: float = 0.2
    """How much more alike a pair has to be than a pair of others."""
    adaptive: bool = False
    """Times how relevant a clip's text is to it, 0.1 to 1: half right texts pull half as far (LaViLa, with a margin of
    0.4). EPIC-Kitchens' retrieval alone says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifySpec:
    """Cross entropy over one or several heads."""

    smoothing: float = 0.0
    """Share of the target that is spread over all classes (Szegedy et al. 2016)."""
    mixup: bool = False
    """Mix each clip with its neighbour in the plan, by mixup or CutMix."""
    mixup_alpha: float = 0.8
    """Of mixup's Beta distribution (Zhang et al. 2018)."""
    cutmix_alpha: float = 1.0
    """Of CutMix's Beta distribution (Yun et al. 2019)."""
    cutmix_share: float = 0.5
    """Share of the pairs that CutMix mixes."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.smoothing < 1.0:
            raise BadInput(f"--smoothing is {self.smoothing:g}, wanted 0 or more and less than 1")


def _check_mask_ratio(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise BadInput(f"--mask-ratio is {ratio:g}, wanted more than 0 and less than 1")


TaskSpec = MaeSpec | CmaeSpec | ContrastiveSpec | RankingSpec | ClassifySpec
