"""Ranks of one run on one node have one plan and each rank once; other runs are none of their concern."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from tests.integration.serving import wait_until
from trainer_client.rank_roll import RankRoll, RunKey, run_key

PLAN = {"world_size": 2, "run_seed": 0, "data set": ""}
OTHER = """
import sys
from trainer_client.rank_roll import RankRoll, RunKey
roll = RankRoll(RunKey(key=sys.argv[1], sure=True), rank=int(sys.argv[2]))
roll.enter({"world_size": 2, "run_seed": int(sys.argv[3]), "data set": sys.argv[4]})
print("entered", flush=True)
sys.stdin.readline()
"""


@contextmanager
def other_rank(key: RunKey, rank: int, *, seed: int = 0, data: str = "") -> Iterator[subprocess.Popen[str]]:
    """A rank in another process, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, key.key, str(rank), str(seed), data],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    with process:
        assert process.stdout.readline() == "entered\n"
        yield process
        process.kill()


@pytest.fixture
def key() -> RunKey:
    return RunKey(key=uuid.uuid4().hex[:12], sure=True)


def test_two_ranks_of_one_plan_go_on(key: RunKey) -> None:
    roll = RankRoll(key, rank=0)
    with other_rank(key, 1, data="v1-a"):
        roll.enter(PLAN)  # what it does not know differs from nothing
        roll.enter(PLAN | {"data set": "v1-a"})
    roll.close()


def test_a_rank_that_is_there_twice_is_refused_until_the_other_is_gone(key: RunKey) -> None:
    roll = RankRoll(key, rank=1)
    with other_rank(key, 1) as other:
        with pytest.raises(BadInput, match=f"rank 1 is there twice: process {other.pid} of this node has it too"):
            roll.enter(PLAN)
        other.kill()
        other.wait(20)
        roll.enter(PLAN)
    roll.close()


def test_another_plan_is_refused_thing_by_thing(key: RunKey) -> None:
    roll = RankRoll(key, rank=0)
    with (
        other_rank(key, 1, seed=5, data="v1-b") as other,
        pytest.raises(BadInput, match=f"process {other.pid} .*rank 1 .*has another run_seed, data set than rank 0"),
    ):
        roll.enter(PLAN | {"data set": "v1-a"})


def test_where_it_may_be_another_run_it_is_told(key: RunKey, caplog: pytest.LogCaptureFixture) -> None:
    roll = RankRoll(RunKey(key=key.key, sure=False), rank=0)
    with other_rank(key, 1, seed=5):
        roll.enter(PLAN)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "has another run_seed" in caplog.text
    assert "if that is another run, give each a name" in caplog.text
    roll.close()


def test_other_runs_and_later_loaders_are_not_compared(key: RunKey) -> None:
    elsewhere = RankRoll(RunKey(key=uuid.uuid4().hex[:12], sure=True), rank=1)
    first, second = RankRoll(key, rank=1), RankRoll(key, rank=1)
    with other_rank(key, 1, seed=5):
        elsewhere.enter(PLAN)
        second.enter(PLAN)  # the other's first loader is not this process's second
    for roll in (elsewhere, first, second):
        roll.close()


def test_a_key_is_sure_by_the_launcher_or_by_name() -> None:
    launched = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none"}
    assert run_key("", "train", launched).sure
    assert run_key("big", "train", {}).sure
    assert not run_key("", "train", {}).sure
    assert run_key("", "train", launched) == run_key("", "train", dict(launched))
    others = [run_key("", "eval", launched), run_key("big", "train", launched), run_key("", "train", {})]
    others += [run_key("", "train", launched | {"MASTER_PORT": "2"})]
    assert len({one.key for one in [run_key("", "train", launched), *others]}) == 5


def test_a_forked_child_does_not_keep_an_entry(key: RunKey) -> None:
    roll = RankRoll(key, rank=1)
    roll.enter(PLAN)
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(there)
        os.read(here, 1)
        os._exit(0)
    try:
        roll.close()
        entries = Path("/proc/net/unix")
        wait_until("the child has let go", lambda: key.key not in entries.read_text(errors="replace"))
    finally:
        os.close(there)
        os.close(here)
        os.waitpid(child, 0)
