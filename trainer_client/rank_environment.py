"""Which rank of how many a process is: what the user says, else what torchrun put into the environment. Pure.

It knows neither loaders nor other ranks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from framefeed.errors import BadInput
from framefeed.show_value import show_value

_RANK, _WORLD_SIZE = "RANK", "WORLD_SIZE"  # set by torchrun in every rank


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOf:
    """Rank `rank` of `world_size`; `told` says where it comes from when that is the environment, and `contradicts`
    that the environment says otherwise, "" where there is nothing to say.
    """

    rank: int
    world_size: int
    told: str = ""
    contradicts: str = ""


def rank_of(rank: int | None, world_size: int | None, environment: Mapping[str, str] = os.environ) -> RankOf:
    """What is given, if both are; else the environment's where it has more than one rank; else 0 of 1.

    Raises BadInput where the environment has no whole numbers, or what is given does not go with it.
    """
    theirs = _in_environment(environment) if rank is None or world_size is None else _or_none(environment)
    if theirs is None:
        return RankOf(rank=rank or 0, world_size=1 if world_size is None else world_size)
    said = f"{_RANK} is {theirs.rank} and {_WORLD_SIZE} {theirs.world_size} in the environment"
    if rank is not None and world_size is not None:
        if (rank, world_size) == (theirs.rank, theirs.world_size):
            return RankOf(rank=rank, world_size=world_size)
        contradicts = f"rank is {rank} and world_size {world_size} in the options, which win, and {said}"
        return RankOf(rank=rank, world_size=world_size, contradicts=contradicts)
    for name, given, its in (("rank", rank, theirs.rank), ("world_size", world_size, theirs.world_size)):
        if given not in (None, its):
            raise BadInput(f"loader: {name} is {given} and {said}; wanted both rank and world_size, or neither")
    return RankOf(
        rank=theirs.rank,
        world_size=theirs.world_size,
        told=f"rank {theirs.rank} of {theirs.world_size}, by {_RANK} and {_WORLD_SIZE} in the environment",
    )


def _or_none(environment: Mapping[str, str]) -> RankOf | None:
    """The environment's, only to compare with: a strange one is as good as none."""
    try:
        return _in_environment(environment)
    except BadInput:
        return None


def _in_environment(environment: Mapping[str, str]) -> RankOf | None:
    """None where it has no ranks, or a single one."""
    texts = {name: environment.get(name) for name in (_RANK, _WORLD_SIZE)}
    if texts[_WORLD_SIZE] in (None, "", "1"):
        return None
    for name, text in texts.items():
        if text is None or not text.isdecimal():
            seen = "not set" if text is None else show_value(text)
            raise BadInput(
                f"environment: {name} is {seen} beside {_WORLD_SIZE} {show_value(texts[_WORLD_SIZE])}, wanted a whole "
                "number, or rank and world_size in the options"
            )
    numbers = {name: int(text) for name, text in texts.items() if text is not None}
    if not 0 <= numbers[_RANK] < numbers[_WORLD_SIZE]:
        raise BadInput(f"environment: {_RANK} is {texts[_RANK]} of {texts[_WORLD_SIZE]}, wanted 0 <= rank < world size")
    return RankOf(rank=numbers[_RANK], world_size=numbers[_WORLD_SIZE])
