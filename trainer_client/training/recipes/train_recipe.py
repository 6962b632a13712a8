"""The verb `train recipe`: trains what a recipe's file says; every run leaves its own as OUT/recipe.json.

framefeed train recipe runs/mae/recipe.json session.out=runs/longer session.steps=20000 learning.layer_decay=0.75
framefeed train recipe runs/mae/recipe.json session.resume=true compute.micro_clips=16
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from trainer_client.training.recipes.mae import TrainMae
from trainer_client.training.recipes.recipe_file import read_recipe

RECIPES = {"mae": TrainMae}


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Train what a run's recipe.json says, with changes."""

    file: Annotated[Path, tyro.conf.Positional]
    """A recipe.json that a run has left."""
    changes: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Fields to change, each NAME.OF.FIELD=VALUE, the value as JSON or else as text."""

    def run(self) -> None:
        """Train as the recipe's own verb does. Raises BadInput for a file or change that makes no recipe."""
        read_recipe(self.file, RECIPES, changes=self.changes).run()
