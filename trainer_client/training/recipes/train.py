"""The verb `train`: a recipe by its name or its file, with changes of any of its fields.

framefeed train mae ROOT --out runs/mae --lr 1e-3                  # each field is an option, or
framefeed train mae ROOT --out runs/mae learning.lr=1e-3           # name.of.field=value, as in Python
framefeed train runs/mae/recipe.json out=runs/longer steps=20000   # what a run was, and is to be
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from framefeed.cli.help_page import columns_page
from framefeed.cli.standard_streams import log_to_stdout
from framefeed.cli.verbs import parse_options
from framefeed.errors import BadInput
from trainer_client.training.recipes.catalogue import RECIPES, about, find_recipe, makers
from trainer_client.training.recipes.overrides import CHANGE, changed
from trainer_client.training.recipes.recipe import Recipe
from trainer_client.training.recipes.recipe_file import read_recipe
from trainer_client.training.recipes.resumed import as_it_was
from trainer_client.training.recipes.run import train


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a recipe; 'framefeed train --help' lists them."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Train it, whether or not anybody reads the log. Raises as `run.train` does."""
        log_to_stdout()
        train(self.recipe)

    @classmethod
    def parse(cls, args: list[str]) -> Train:
        """The recipe that the arguments begin with, changed as the rest says.

        Raises BadInput, in one line, for a recipe or field that there is not (with the nearest), for values that none
        takes, and for what has no default; SystemExit after --help.
        """
        if not args or args[0] in ("-h", "--help", "--help-all"):
            _list_recipes()
            raise SystemExit(0 if args else 2)
        name, *rest = args
        is_file = name.endswith(".json") or Path(name).is_file()
        recipe = read_recipe(Path(name), makers()) if is_file else find_recipe(name)
        recipe = changed(recipe, *filter(CHANGE.fullmatch, rest), what=f"train {name}")
        options = [arg for arg in rest if not CHANGE.fullmatch(arg)]
        recipe = parse_options(Recipe, options, name=f"train {name}", default=recipe, about=about(recipe.name))
        said = {_name(arg) for arg in rest}
        recipe = _of_one_length(recipe, said)
        return cls(recipe=recipe if is_file else as_it_was(recipe, said))  # a file says all


def _of_one_length(recipe: Recipe, said: set[str]) -> Recipe:
    """The recipe as long as the arguments say, in the words that they use: epochs that are said take the place of the
    steps that a recipe has. Raises BadInput where both are said.
    """
    length = recipe.what.length
    if "epochs" not in said or length.steps is None or length.epochs is None:
        return recipe
    if "steps" in said:
        raise BadInput(f"--steps is {length.steps} and --epochs is {length.epochs:g}; wanted one of them")
    return replace(recipe, what=replace(recipe.what, length=replace(length, steps=None)))


def _name(arg: str) -> str:
    """The field that an argument is of, if it is of one: of --base-lr and learning.base_lr=1 that is base_lr."""
    if not (arg.startswith("--") or "=" in arg):
        return ""
    return arg.lstrip("-").partition("=")[0].rpartition(".")[2].replace("-", "_")


def _list_recipes() -> None:
    rows = [(name, about(name).partition("\n")[0]) for name in RECIPES]
    lines = [
        "usage: framefeed train RECIPE ROOT [options] [name.of.field=value …]",
        "",
        *columns_page(rows, left=24),
        "",
    ]
    print("\n".join([*lines, "framefeed train RECIPE --help shows its options; RECIPE may be a recipe.json"]))
