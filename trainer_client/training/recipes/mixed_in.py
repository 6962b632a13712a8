"""What a recipe says of a data set that it learns from beside its own; knows no samples, batches or servers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from framefeed.errors import BadInput
from trainer_client.datasets.spec import DataSpec
from trainer_client.training.recipes.clip_spec import ClipSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedIn:
    """Another data set of the same root, mixed into every batch.

    framefeed train ego4d_contrastive_vitb ROOT … 'mix=[{"data": {"kind": "ego4d", "path": "aux.pkl"}, "weight": 0.5}]'
    """

    data: DataSpec
    """Its annotations."""
    weight: float | None = None
    """How many of its samples come for each of the recipe's own data set; an epoch is as long as that takes to use each
    sample of both at least once. None: each of its samples comes once."""
    clips: ClipSpec | None = None
    """Which frames and which box, whole. None: the recipe's."""

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise BadInput(f"mix: weight is {self.weight:g}, wanted a positive number, or null for each sample once")
        if self.clips is not None and self.clips.buckets:
            raise BadInput("mix: clips.buckets is true; wanted it in the recipe's own clips, for all data sets")
