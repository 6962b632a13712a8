"""When a run saves, what that costs the steps meanwhile, and what ranks agree on: made runs, real files and threads."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from framefeed.errors import BadInput, StorageFault
from tests.integration.serving import wait_until
from tests.unit.trainer.small_run import MadeFeed, NoStops, make_loop
from tests.unit.trainer.stored_runs import kept_in
from trainer_client.training.best_score import BestScore, Metric, best_of
from trainer_client.training.data_states import data_of_rank
from trainer_client.training.loop import Limits
from trainer_client.training.meeting import Agreed, Asks, Meeting
from trainer_client.training.processes import GONE, RankLost
from trainer_client.training.ranks import Ranks
from trainer_client.training.saver import Rhythm, Saver


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("step", "saved", "since_s", "due"),
    [
        (7, 0, 0.0, True),
        (6, 0, 0.0, False),
        (8, 7, 0.0, False),
        (15, 7, 0.0, True),
        (8, 7, 60.0, True),
        (7, 7, 99.0, False),
    ],
)
def test_it_saves_after_so_many_steps_or_seconds_and_no_step_twice(
    step: int, saved: int, since_s: float, due: bool
) -> None:
    assert Rhythm(steps=7, seconds=60.0).is_due(step, saved_step=saved, since_s=since_s) is due


def test_a_disk_that_stands_does_not_hold_up_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps go on, no second save begins, and what is then written is the state at the step where it began."""
    disk, real = threading.Event(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (disk.wait(60), real(descriptor)))
    loop = make_loop(steps=50, feed=MadeFeed(lambda step: disk.set() if step == 40 else None))
    saver = Saver(loop, kept_in(tmp_path, keep=99), Rhythm(steps=3))
    seen: dict[int, list[str]] = {}
    loop.on_record.append(lambda record: seen.setdefault(record.step, names(tmp_path)))
    loop.run(Limits(steps=45), stops=NoStops(), saves=saver)
    assert all(names == [f".step_000000003.{'0' * 16}.part"] for step, names in seen.items() if 4 <= step <= 38)
    saver.finish()
    first = kept_in(tmp_path).load(tmp_path / "step_000000003", Ranks())
    wanted = make_loop(steps=50)
    wanted.run(Limits(steps=3), stops=NoStops())
    again = make_loop(steps=50)
    again.load_state(first)
    pairs = zip(again.state().tensors.values(), wanted.state().tensors.values(), strict=True)
    assert all(bool((mine == theirs).all()) for mine, theirs in pairs)
    assert names(tmp_path)[-1] == "step_000000045"
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_minutes_are_those_of_a_clock_that_is_given(tmp_path: Path) -> None:
    now_s = 0.0

    def tick(step: int) -> None:
        """Ten seconds a step, which are longer than the disk takes."""
        nonlocal now_s
        now_s = 10.0 * step
        wait_until("all is written", lambda: all(t.name != "framefeed-checkpoint" for t in threading.enumerate()))

    loop = make_loop(steps=50, feed=MadeFeed(tick, late=range(50)))
    saver = Saver(loop, kept_in(tmp_path, keep=99), Rhythm(steps=1000, seconds=100.0), clock=lambda: now_s)
    loop.run(Limits(steps=25), stops=NoStops(), saves=saver)
    saver.finish()
    assert names(tmp_path) == [f"step_{step:09d}" for step in (10, 20, 25)]


def test_a_write_that_fails_ends_the_run_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    loop = make_loop(steps=50)
    saver = Saver(loop, kept_in(tmp_path), Rhythm(steps=3))

    def run() -> None:
        loop.run(Limits(steps=50), stops=NoStops(), saves=saver)
        saver.finish()

    with pytest.raises(StorageFault, match=r"after step 3: part 0 cannot be written: No space left") as caught:
        run()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("step_*"))


def test_the_best_by_a_mean_of_the_steps_stays(tmp_path: Path) -> None:
    loop = make_loop(steps=60)
    losses = dict[int, float]()
    saver = Saver(loop, kept_in(tmp_path, keep=1), Rhythm(steps=5), metric=Metric.read("max:loss"))
    loop.on_record += [saver.record, lambda record: losses.setdefault(record.step, record.loss)]
    for until in range(5, 60, 5):  # so that each is on storage before the next is due
        loop.run(Limits(steps=until), stops=NoStops(), saves=saver)
        saver.finish()
    means = {step: sum(losses[s] for s in range(step - 4, step + 1)) / 5 for step in range(5, 60, 5)}
    best = max(means, key=lambda step: means[step])
    assert names(tmp_path) == sorted({f"step_{best:09d}", "step_000000055"})
    said = json.loads((tmp_path / "step_000000055/checkpoint.json").read_text())["best"]
    assert (said["metric"], said["step"]) == ("max:loss", best)
    assert said["value"] == pytest.approx(means[best])


def test_a_metric_that_no_step_has_is_refused(tmp_path: Path) -> None:
    loop = make_loop(steps=9)
    saver = Saver(loop, kept_in(tmp_path), Rhythm(steps=500), metric=Metric.read("min:top1"))
    steps = list[int]()
    loop.on_record += [lambda record: steps.append(record.step), saver.record]
    with pytest.raises(BadInput, match="--keep-best names top1, wanted one of loss"):
        loop.run(Limits(steps=9), stops=NoStops(), saves=saver)
    assert steps == [1], "the first step says it, not the first checkpoint, hours later"
    for text in ("loss", "least:loss", "min:"):
        with pytest.raises(BadInput, match="wanted min:NAME or max:NAME"):
            Metric.read(text)


def test_the_best_is_of_one_metric_and_a_number() -> None:
    low, high = Metric.read("min:loss"), Metric.read("max:top1")
    first = best_of(None, low, value=2.0, step=1)
    assert first == BestScore(metric=low, value=2.0, step=1)
    assert best_of(first, low, value=2.0, step=2) == first
    assert best_of(first, low, value=float("nan"), step=2) == first
    assert best_of(first, low, value=1.0, step=2) == BestScore(metric=low, value=1.0, step=2)
    assert best_of(first, high, value=0.1, step=3) == BestScore(metric=high, value=0.1, step=3)
    assert BestScore.read(json.loads(json.dumps(first.as_json()))) == first
    for said in (
        None,
        3,
        {},
        {"metric": "loss", "value": 1.0, "step": 1},
        {"metric": "min:x", "value": "1", "step": 1},
    ):
        assert BestScore.read(said) is None


def record(position: int) -> list[object]:
    return [position, [3], 0, 5, 7, "corrupt_media"]


def test_data_states_go_back_to_their_ranks_and_are_shared_when_there_are_others() -> None:
    same = {"position": 12, "shuffle": False, "decoder_fingerprint": "d"}
    states = [
        {**same, "stand_ins": json.dumps([record(9)])},
        dict(same),
        {**same, "stand_ins": json.dumps([record(2)])},
    ]
    for rank, state in enumerate(states):
        assert data_of_rank(states, rank=rank, world=3) == state
    for rank in range(2):
        given = data_of_rank(states, rank=rank, world=2)
        assert json.loads(str(given.pop("stand_ins"))) == [record(2), record(9)]
        assert given == same
    assert data_of_rank(states[1:2], rank=1, world=2) == same
    with pytest.raises(BadInput, match="the data of rank 1 stands elsewhere: 'position' is 16, rank 0's 12"):
        data_of_rank([same, {**same, "position": 16}], rank=0, world=2)
    with pytest.raises(BadInput, match="stand_ins is 'x', wanted a record"):
        data_of_rank([same, {**same, "stand_ins": "x"}], rank=0, world=1)


def meet_all(meetings: list[Meeting], asks: list[Asks]) -> list[Agreed | RankLost]:
    """What each rank learns, each in a thread of its own."""
    seen: list[Agreed | RankLost | None] = [None] * len(meetings)

    def meet(rank: int) -> None:
        try:
            seen[rank] = meetings[rank].meet(asks[rank])
        except RankLost as error:
            seen[rank] = error

    threads = [threading.Thread(target=meet, args=(rank,)) for rank in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert None not in seen
    return [one for one in seen if one is not None]


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def meetings_over(store: TCPStore, world: int, clock: Callable[[], float] = lambda: 0.0) -> list[Meeting]:
    """Of ranks that are threads here, each with a connection of its own."""
    made = []
    for rank in range(world):
        own = TCPStore("127.0.0.1", store.port, is_master=False, timeout=timedelta(seconds=60))
        made.append(Meeting(Ranks(rank=rank, world=world), clock=clock, store=dist.PrefixStore("run", own), name="run"))
    return made


def test_all_ranks_learn_the_same(store: TCPStore) -> None:
    meetings = meetings_over(store, 3)
    nothing = Agreed(stop=False, late=False, save=False, written=False)
    keys = set()
    for _ in range(20):
        assert meet_all(meetings, [Asks()] * 3) == [nothing] * 3
        keys.add(store.num_keys())
    assert max(keys) - min(keys) <= 2, "what was said goes when it was heard"
    agreed = meet_all(meetings, [Asks(save=True, written=True), Asks(stop=True, written=True), Asks()])
    assert agreed == [Agreed(stop=True, late=False, save=True, written=False)] * 3
    agreed = meet_all(meetings, [Asks(written=True), Asks(written=True), Asks(late=True, written=True)])
    assert agreed == [Agreed(stop=False, late=True, save=False, written=True)] * 3


def test_a_rank_that_is_gone_ends_the_wait_for_it(store: TCPStore) -> None:
    meetings = meetings_over(store, 2)
    dist.PrefixStore("run", store).set(GONE, "rank 1")
    (lost,) = meet_all(meetings[:1], [Asks()])
    assert str(lost) == "rank 1 is gone"


def test_nobody_waits_for_ever(store: TCPStore) -> None:
    now_s = iter(range(0, 10_000, 400))
    (lost,) = meet_all(meetings_over(store, 2, lambda: float(next(now_s)))[:1], [Asks()])
    assert str(lost) == "the other ranks have not come to the next step within 800 s"


def test_one_that_is_alone_agrees_with_itself() -> None:
    meeting = Meeting(Ranks())
    assert meeting.meet(Asks(save=True, written=True)) == Agreed(stop=False, late=False, save=True, written=True)
    assert not meeting.meet(Asks()).written
    with pytest.raises(BadInput, match="world size is 5000, wanted at most 4095"):
        Meeting(Ranks(rank=0, world=5000))
