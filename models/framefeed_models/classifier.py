"""A video encoder with linear heads on its feature; it knows numbers of classes, not their names or losses.

Axes: B clips, T frames, Y rows, X columns, C channels, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from framefeed_models.clip_noise import ClipDropout, fold
from framefeed_models.encoder import EncoderConfig, feature_of, make_encoder

# EPIC-Kitchens-100: one head over its 3806 pairs of verb and noun (AVION), or three (LaViLa's alternative).
EPIC_ACTIONS: Mapping[str, int] = {"action": 3806}
EPIC_VERBS_NOUNS_ACTIONS: Mapping[str, int] = {"verb": 97, "noun": 300, "action": 3806}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """An encoder and one linear head for each name in `heads`, of so many classes.

    `dropout` acts on the feature (AVION and LaViLa 0.5). Head weights start normal with deviation `head_std` (AVION and
    LaViLa 0.01; VideoMAE 2e-5: its 0.02 times 0.001), biases at 0. Raises ValueError for values that make no network.
    """

    encoder: EncoderConfig
    heads: Mapping[str, int] = field(default_factory=lambda: EPIC_ACTIONS)
    dropout: float = 0.0
    head_std: float = 0.01

    def __post_init__(self) -> None:
        if not self.heads or min(self.heads.values()) < 1:
            raise ValueError(f"classifier: heads are {dict(self.heads)}, wanted at least one of at least 1 class")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"classifier: dropout is {self.dropout}, wanted 0 <= p < 1")


class Classifier(nn.Module):
    """logits_h = W_h dropout(pooled(x)) + b_h for each head h."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_encoder(config.encoder)
        self.dropout = ClipDropout(config.dropout)
        width = config.encoder.stack.width
        self.heads = nn.ModuleDict(
            {name: _head(width, classes, std=config.head_std) for name, classes in config.heads.items()}
        )

    def forward(
        self, x_BCTYX: Tensor, *, seeds_B: Tensor | None = None, frames_B: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Logits (B, classes) by head for float clips (B, C, T, Y, X), of which `frames_B` frames are no padding.

        All that is random follows the clips' seeds, int64 (B,) on their device; without them torch's generator. Raises
        ValueError for clips of another shape.
        """
        feature_BD = feature_of(self.encoder, x_BCTYX, seeds_B=fold(seeds_B, 0), frames_B=frames_B)
        feature_BD = self.dropout(feature_BD, fold(seeds_B, 1))
        return {name: head(feature_BD) for name, head in self.heads.items()}


def _head(width: int, classes: int, *, std: float) -> nn.Linear:
    head = nn.Linear(width, classes)
    nn.init.normal_(head.weight, std=std)
    nn.init.zeros_(head.bias)
    return head
