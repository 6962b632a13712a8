"""A run's recipe as a file: all that was chosen with every default resolved, so that the file makes the same run again.

It knows recipes by the functions that make them, and none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.new_file import write_whole
from framefeed.show_value import show_value
from trainer_client.training.recipes.overrides import plain, rebuilt
from trainer_client.training.recipes.recipe import Recipe

RECIPE_NAME = "recipe.json"


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe, whole or not at all. Raises OSError."""
    write_whole(path, json.dumps(plain(recipe), indent=1).encode() + b"\n")


def read_recipe(path: Path, makers: Mapping[str, Callable[[], Recipe]]) -> Recipe:
    """The recipe in a file, of one of these names; its maker says the types, and what the file leaves out.

    Raises BadInput, in one line, for a file that holds none, a name that is no field (with the nearest that is), and
    values of another type or that the recipe itself refuses.
    """
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"recipe {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"recipe {path} is no JSON: {str(error)[:200]}") from None
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(name, str) or name not in makers:
        shown = name if isinstance(name, str) else type(name).__name__
        raise BadInput(f"recipe {path} is of kind {show_value(shown)}, wanted one of {', '.join(sorted(makers))}")
    return rebuilt(makers[name](), body, what=f"recipe {path}")
