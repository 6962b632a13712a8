"""What a recipe's user chooses about feeding reaches the loader."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from framefeed.errors import BadInput
from tests.unit.client.clips import POLICY
from tests.unit.trainer.small_run import CPU
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import FleetLimits
from trainer_client.loader import LoaderOptions
from trainer_client.memory_budgets import RankBudgets
from trainer_client.samples import Sample
from trainer_client.training.feed_options import FeedOptions, FeedPlan

PLAN = FeedPlan(
    root=Path("root"),
    logs=Path("logs"),
    dataset=[Sample(video="a", start_s=0, end_s=1)] * 9,
    policy=POLICY,
    batch_clips=64,
    seed=3,
    steps=5,
)


def opened(**options: object) -> LoaderOptions:
    feed = FeedOptions(servers=("tcp://a:1",), **options)  # type: ignore[arg-type]
    with feed.open(PLAN, compute=CPU, registry=CollectorRegistry()) as loader:
        return loader.options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempt_s", 3.0),
        ("attempt_min_s", 0.5),
        ("hedge_share", 0.01),
        ("affinity_slack", None),
        ("on_stall", "log"),
        ("order", "window:4"),
        ("allow_mixed_decoders", True),
    ],
)
def test_an_option_reaches_the_loader_under_its_name(name: str, value: object) -> None:
    chosen, default = opened(**{name: value}), opened()
    assert getattr(chosen, name) == value
    assert dataclasses.replace(default, **{name: value}) == chosen, "and changes nothing else"


def test_no_default_is_declared_twice() -> None:
    """The recipe's are the loader's, and the loader's those of the dispatch and the fleet, whatever their values."""
    assert opened() == LoaderOptions(servers=("tcp://a:1",), batch_clips=64, run_seed=3, steps=5, rank=0, world_size=1)
    budgets = RankBudgets(prefetch_bytes=1, inflight_bytes=DispatchLimits().inflight_bytes)
    assert opened().dispatch_limits(budgets) == DispatchLimits(head_clips=64), "those of the oldest batch"
    assert opened().fleet_limits() == FleetLimits()


def test_memory_budgets_reach_the_loader_in_bytes() -> None:
    chosen = opened(prefetch_mib=3, inflight_mib=2)
    assert (chosen.prefetch_bytes, chosen.inflight_bytes) == (3 << 20, 2 << 20)


def test_what_becomes_of_poison_reaches_the_loader(tmp_path: Path) -> None:
    poison = opened(poison="skip", poison_servers=3, poison_budget=7, poison_list=tmp_path).poison
    assert (poison.policy, poison.servers, poison.budget, poison.folder) == ("skip", 3, 7, tmp_path)
    assert opened().poison.policy == "raise"
    assert opened(watchdog_s=33.0).stall_s == 33.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"order": "window"}, "loader: "),
        ({"poison": "ignore"}, "loader: "),
        ({"poison_budget": -1}, "poison_budget is -1, wanted a whole number or a share from 0 to 1"),
        ({"poison_servers": 0}, "loader: "),
        ({"hedge_share": 2}, "hedge_share is 2, wanted 0 to 1"),
        ({"affinity_slack": 0}, "loader: "),
        ({"attempt_min_s": 0}, "loader: "),
        ({"on_stall": "panic"}, "loader: "),
    ],
)
def test_options_that_make_no_sense_are_one_line(options: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says) as refused:
        opened(**options)
    assert "\n" not in str(refused.value)
