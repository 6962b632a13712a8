"""Which rank a process is: what is given, else torchrun's word; what cannot be brought together is refused or told."""

from __future__ import annotations

import pytest

from framefeed.errors import BadInput
from trainer_client.rank_environment import RankOf, rank_of

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8"}


def test_torchrun_s_ranks_are_taken_and_said() -> None:
    told = "rank 3 of 8, by RANK and WORLD_SIZE in the environment"
    assert rank_of(None, None, TORCHRUN) == RankOf(rank=3, world_size=8, told=told)
    assert rank_of(None, 8, TORCHRUN) == RankOf(rank=3, world_size=8, told=told)
    assert rank_of(3, None, TORCHRUN) == RankOf(rank=3, world_size=8, told=told)


@pytest.mark.parametrize("environment", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "3"}, {"WORLD_SIZE": ""}])
def test_without_ranks_there_is_one(environment: dict[str, str]) -> None:
    assert rank_of(None, None, environment) == RankOf(rank=0, world_size=1)
    assert rank_of(1, 2, environment) == RankOf(rank=1, world_size=2)


def test_what_is_given_wins_and_a_contradiction_is_told() -> None:
    assert rank_of(3, 8, TORCHRUN) == RankOf(rank=3, world_size=8)
    found = rank_of(0, 1, TORCHRUN)
    assert (found.rank, found.world_size) == (0, 1)
    assert "rank is 0 and world_size 1 in the options, which win, and RANK is 3 and WORLD_SIZE 8" in found.contradicts
    assert rank_of(0, 2, {"WORLD_SIZE": "x"}) == RankOf(rank=0, world_size=2)


@pytest.mark.parametrize(
    ("rank", "world_size", "environment", "says"),
    [
        (0, None, TORCHRUN, "rank is 0 and RANK is 3 and WORLD_SIZE 8 in the environment; wanted both"),
        (None, 4, TORCHRUN, "world_size is 4 and RANK is 3 and WORLD_SIZE 8 in the environment; wanted both"),
        (None, None, {"WORLD_SIZE": "8"}, "RANK is not set beside WORLD_SIZE '8'"),
        (None, None, {"WORLD_SIZE": "8", "RANK": "x"}, "RANK is 'x'"),
        (None, None, {"WORLD_SIZE": "eight", "RANK": "1"}, "WORLD_SIZE is 'eight'"),
        (None, None, {"WORLD_SIZE": "8", "RANK": "8"}, "RANK is 8 of 8, wanted 0 <= rank"),
    ],
)
def test_what_cannot_be_brought_together_is_refused(
    rank: int | None, world_size: int | None, environment: dict[str, str], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        rank_of(rank, world_size, environment)
