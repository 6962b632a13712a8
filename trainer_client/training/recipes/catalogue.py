"""The recipes by name. A recipe is a function of where its run lives that returns a typed Recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import tyro

from framefeed.errors import BadInput
from framefeed.nearest_name import nearest_name
from framefeed.show_value import show_value
from trainer_client.training.recipes.ego4d import ego4d_contrastive_vitb, ego4d_contrastive_vitl, lavila_tsf_baseline
from trainer_client.training.recipes.epic_kitchens import ek100_cls_finetune, ek100_mir_finetune
from trainer_client.training.recipes.kinetics import k400_finetune, k400_mae_pretrain, k700_finetune
from trainer_client.training.recipes.mae import mae
from trainer_client.training.recipes.masked_pretraining import cmae_pretrain, ssv2_mae_pretrain
from trainer_client.training.recipes.recipe import Recipe
from trainer_client.training.recipes.tiny import classify_tiny, cmae_tiny, contrastive_tiny, mae_tiny, ranking_tiny

Maker = Callable[..., Recipe]

_ALL: tuple[Maker, ...] = (
    mae,
    ego4d_contrastive_vitb,
    ego4d_contrastive_vitl,
    lavila_tsf_baseline,
    ek100_mir_finetune,
    ek100_cls_finetune,
    k400_mae_pretrain,
    k400_finetune,
    k700_finetune,
    ssv2_mae_pretrain,
    cmae_pretrain,
    mae_tiny,
    cmae_tiny,
    contrastive_tiny,
    ranking_tiny,
    classify_tiny,
)
RECIPES: Mapping[str, Maker] = {make.__name__: make for make in _ALL}


def makers() -> dict[str, Callable[[], Recipe]]:
    """The recipes without their places, which the command line, or a file, has to say."""
    return {name: partial(_without_places, make) for name, make in RECIPES.items()}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, without its places. Raises BadInput, with the nearest name."""
    if name not in RECIPES:
        near = nearest_name(name, RECIPES)
        hint = f"did you mean {near!r}?" if near else f"wanted one of {', '.join(RECIPES)}, or a recipe.json"
        raise BadInput(f"unknown recipe {show_value(name)}; {hint}")
    return _without_places(RECIPES[name])


def about(name: str) -> str:
    """What a recipe says of itself: a line, then its command, cost, score and sources."""
    return inspect.getdoc(RECIPES[name]) or ""


def _without_places(make: Maker) -> Recipe:
    return make(**dict.fromkeys(inspect.signature(make).parameters, tyro.MISSING))
