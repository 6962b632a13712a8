"""Whose turn it is among runs, and how their weights are given; test_fair_servers.py has them on busy servers."""

from __future__ import annotations

import pytest

from decode_server.service.run_shares import MAX_RUNS, RunShares, parse_run_shares
from framefeed.errors import BadInput


def take_turns(shares: RunShares, took_s: dict[str, float], *, turns: int) -> list[str]:
    """Runs that always wait, one clip at a time; each takes as long as its run's do."""
    for run in took_s:
        shares.waits(run)
    order = []
    for clip in range(turns):
        run = shares.in_turn()[0]
        shares.begins(run, clip)
        shares.waits(run)
        shares.ended(clip, took_s[run])
        order.append(run)
    return order


def test_what_clips_take_is_shared_and_not_their_number() -> None:
    order = take_turns(RunShares(), {"dear": 0.4, "cheap": 0.1}, turns=1000)
    assert order.count("cheap") == pytest.approx(4 * order.count("dear"), rel=0.02)


def test_a_weight_is_a_share_relative_to_the_others() -> None:
    order = take_turns(RunShares({"heavy": 3.0}), {"heavy": 0.1, "light": 0.1, "other": 0.1}, turns=1000)
    assert [order.count(run) for run in ("heavy", "light", "other")] == [
        pytest.approx(n, abs=5) for n in (600, 200, 200)
    ]


def test_who_asked_for_nothing_has_saved_nothing_and_owes_what_it_used() -> None:
    shares = RunShares()
    take_turns(shares, {"busy": 1.0}, turns=50)
    shares.waits("late")
    late_turns = []
    for clip in range(100, 110):
        run = shares.in_turn()[0]
        shares.begins(run, clip)
        shares.waits(run)
        shares.ended(clip, 1.0)
        late_turns.append(run)
    assert late_turns.count("late") == pytest.approx(5, abs=1), "it makes up for the time before it came"


def test_a_clip_whose_end_tells_nothing_stays_charged_as_reckoned() -> None:
    shares = RunShares()
    take_turns(shares, {"a": 1.0}, turns=100)
    shares.begins("a", 1000)
    shares.waits("b")
    shares.ended(1000, None)
    shares.waits("a")
    assert shares.in_turn() == ["b", "a"]


def test_runs_without_end_are_few_here() -> None:
    shares = RunShares({"named": 2.0})
    for number in range(MAX_RUNS):
        shares.waits(shares.name(f"run{number}"))
    assert shares.name("one more") == ""
    assert (shares.name("run3"), shares.name("named")) == ("run3", "named")
    for number in range(MAX_RUNS):
        shares.waits_no_more(f"run{number}")
    assert shares.name("one more") == "one more", "those that ask for nothing keep their place"


def test_shares_as_they_are_given() -> None:
    assert parse_run_shares(["base=1", "ablation-2.b=0.5", "=3"]) == {"base": 1.0, "ablation-2.b": 0.5, "": 3.0}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["base"], "'base' is no share; wanted NAME=WEIGHT"),
        (["base=0"], "'base=0' is no share"),
        (["base=-1"], "is no share"),
        (["base=nan"], "is no share"),
        (["a b=1"], "is no share"),
        (["x" * 65 + "=1"], "is no share"),
        (["base=1", "base=2"], "'base' is given twice"),
    ],
)
def test_what_is_no_share_is_named(options: list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        parse_run_shares(options)
