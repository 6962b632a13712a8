"""An exception from a signal's handler at any moment, and then going on: the run is the one that nobody disturbed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clip_servers import ClipServer, Manner
from tests.integration.serving import wait_until
from tests.integration.test_client import BATCH, check, loader, servers
from tests.interrupts import Interrupt, Interruption, alarms
from trainer_client.adapters.epoch_batches import EpochBatches
from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader
from trainer_client.training.torch_batches import to_torch

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of finalizers


@pytest.fixture(scope="module")
def server() -> Iterator[ClipServer]:
    with servers(Manner()) as (only,):
        yield only


def steps_done(run: ClipLoader) -> int:
    position = run.state_dict()["position"]
    assert isinstance(position, int)
    return position // BATCH


def next_or_interrupt(run: ClipLoader, interruption: Interruption) -> Batch | None:
    """Check that an interrupted next() has given the batch and counted it, or neither."""
    before = steps_done(run)
    batch = None
    try:
        with interruption:
            batch = next(run)
    except Interrupt:
        if steps_done(run) > before:  # between that and the caller CPython runs no handler
            assert not interruption.is_real, interruption.after
    assert steps_done(run) == before + (batch is not None) or not interruption.is_real
    if batch is not None:
        assert batch.step == before
        check(batch)
    return batch


def check_counts(run: ClipLoader, *, steps: int) -> None:
    stats = run.stats
    assert stats.conserved
    assert (stats.batches, stats.used) == (steps, steps * BATCH)
    assert sum(stats.wait_ns.values()) == stats.blocked_ns
    assert stats.waiting_ns == 0


@pytest.mark.parametrize("prefetch_batches", [pytest.param(1, id="waits"), pytest.param(8, id="ready")])
@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_next_is_whole_at_any_instruction(server: ClipServer, prefetch_batches: int, every: int) -> None:
    with loader(server.url, steps=None, prefetch_batches=prefetch_batches) as run:
        check(next(run))
        number, undisturbed = 1, 0
        while undisturbed < 4 - min(every, 3):  # a wait may take more turns than the one before
            if prefetch_batches > 1:
                wait_until("a batch is there", lambda: run.is_ready)
            interruption = Interruption(number, anywhere=True)
            next_or_interrupt(run, interruption)
            undisturbed = 0 if interruption.came else undisturbed + 1
            number += every
            before = steps_done(run)
            batch = next(run)
            assert batch.step == before
            check(batch)
            check_counts(run, steps=before + 1)
        assert number > 300


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_the_first_next_is_whole(server: ClipServer, every: int) -> None:
    """It starts the feed."""
    number, came = 1, True
    while came:
        with loader(server.url, steps=4) as run:
            interruption = Interruption(number)
            next_or_interrupt(run, interruption)
            came = interruption.came
            done = steps_done(run)
            assert [batch.step for batch in run] == list(range(done, 4))
            check_counts(run, steps=4)
        number += every
    assert number > 300
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("framefeed-feed")]


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_state_is_loaded_or_not(server: ClipServer, every: int) -> None:
    number, came = 1, True
    while came:
        with loader(server.url, steps=6) as run:
            for _ in range(3):
                next(run)
            state = run.state_after(1)
            interruption = Interruption(number)
            try:
                with interruption:
                    run.load_state_dict(state)
            except Interrupt:
                pass
            came = interruption.came
            done = steps_done(run)
            assert done in ((1, 3) if came else (1,))
            for batch in run:
                assert batch.step == done
                check(batch)
                done += 1
            assert done == 6
            assert run.stats.conserved
        number += every
    assert number > 100


READ: dict[str, Callable[[ClipLoader], object]] = {
    "stats": lambda run: run.stats,
    "state": ClipLoader.state_dict,
    "is_ready": lambda run: run.is_ready,
}


@pytest.mark.parametrize("what", READ)
def test_reading_changes_nothing(server: ClipServer, what: str) -> None:
    with loader(server.url, steps=None) as run:
        next(run)
        number, came = 1, True
        while came:
            interruption = Interruption(number)
            try:
                with interruption:
                    READ[what](run)
            except Interrupt:
                pass
            came = interruption.came
            number += 1
            before = steps_done(run)
            batch = next(run)
            assert batch.step == before
            check(batch)
            check_counts(run, steps=before + 1)


def test_what_an_interrupted_close_left_is_closed_by_the_next(server: ClipServer) -> None:
    number, came = 1, True
    while came:
        run = loader(server.url, steps=None)
        next(run)
        interruption = Interruption(number)
        try:
            with interruption:
                run.close()
        except Interrupt:
            pass
        came = interruption.came
        run.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("framefeed-feed")]
        check_counts(run, steps=1)
        number += 1
    assert number > 50


@pytest.mark.parametrize("steps", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_any_moment(server: ClipServer, steps: int) -> None:
    """Nothing is between next() and the list but CPython: so each batch is in it, once."""
    got: list[Batch] = []
    interrupts = 0
    with loader(server.url, steps=steps) as run, alarms(seed=5, up_to_s=3e-4) as (alarm, no_alarm):
        over = False
        while not over:
            before = len(got)
            try:
                alarm()
                got.extend(map(next, (run,)))
                over = len(got) == before
                no_alarm()
            except Interrupt:
                interrupts += 1
            assert steps_done(run) == len(got)
    assert [batch.step for batch in got] == list(range(steps))
    assert interrupts > steps // 10
    check_counts(run, steps=steps)


@pytest.mark.parametrize("made_by", [lambda run: run.made_by(to_torch), EpochBatches], ids=["tensors", "epochs"])
def test_what_is_made_of_a_batch_is_made_again(server: ClipServer, made_by: Callable[[ClipLoader], Any]) -> None:
    """An exception between next() and what an adapter makes of the batch loses neither."""
    with loader(server.url, steps=None, epochs=None) as run:
        batches = iter(made_by(run))
        number, came = 1, True
        while came:
            before = steps_done(run)
            interruption = Interruption(number)
            made = None
            try:
                with interruption:
                    made = next(batches)
            except StopIteration:  # an epoch's end
                batches = iter(made_by(run))
                continue
            except Interrupt:
                assert steps_done(run) == before
            if made is not None:
                positions = made["positions"] if isinstance(made, dict) else made.positions
                assert positions[0] == before * BATCH
            came = interruption.came
            number += 1
        assert number > 50
