"""What a run that resumes keeps of itself: of the options that may change, those that nobody said this time.

It knows checkpoints' headers and options by name, not what they mean.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Set
from pathlib import Path

from framefeed_models.weights.checkpoint_folder import CheckpointError, numbered, read_header
from trainer_client.training.checkpoints import config_of
from trainer_client.training.recipes.overrides import changed
from trainer_client.training.recipes.recipe import Recipe
from trainer_client.training.session import CHANGE_TOGETHER


def as_it_was(recipe: Recipe, said: Set[str]) -> Recipe:
    """The recipe of a run that resumes, with the run's own values of what may change, where neither an option nor one
    that is said instead of it is among those `said`. Any other recipe as it is.

    Raises BadInput for values in the run's checkpoint that are none.
    """
    out = recipe.how.session.out
    if not recipe.how.session.resume:
        return recipe
    own = _options_of(out)
    kept = [name for names in CHANGE_TOGETHER if said.isdisjoint(names) for name in names if name in own]
    return changed(recipe, *(f"{name}={json.dumps(own[name])}" for name in kept), what=f"--resume of {out}")


def _options_of(run: Path) -> Mapping[str, object]:
    """Those of the newest checkpoint that can be read; none where there is none, which the session tells of. Its steps
    are the whole's, however they were said.
    """
    with contextlib.suppress(OSError):
        for _, path in reversed(numbered(run)):
            with contextlib.suppress(CheckpointError):
                return config_of(read_header(path))
    return {}
