"""Who gets how much of servers that are asked for more than they can give: by the real policies, over minutes of a
simulated clock.
"""

from __future__ import annotations

import random
from statistics import mean, median

import pytest

from tests.unit.server.simulated_servers import Client, Clock, Server, around
from tests.unit.server.simulated_trainers import Trainer


@pytest.mark.slow
def test_512_ranks_that_are_out_of_step_get_even_shares_of_8_servers() -> None:
    """By the trainers' real dispatch under its default options as well."""
    rng, clock = random.Random(5), Clock()
    servers = [Server(clock, threads=8) for _ in range(8)]
    ranks = [
        Trainer(name=number.to_bytes(2), clock=clock, servers=servers, clip_s=around(0.02, rng))
        for number in range(512)
    ]
    for rank in ranks:
        clock.after(rng.uniform(0.0, 1.0), rank.begin)
    clock.run(3.0)
    at_start = sum(rank.outcomes["busy"] for rank in ranks)
    assert at_start <= sum(rank.got for rank in ranks), "more than one refusal a clip at the start"
    before = [rank.got for rank in ranks]
    clock.run(8.0)
    got = [rank.got - first for rank, first in zip(ranks, before, strict=True)]
    assert min(got) >= 0.5 * median(got), f"the slowest has {min(got)}, the median {median(got)}"
    assert sum(got) >= 0.95 * 8 * 8 * 5 / 0.02, "threads idle while ranks wait"
    assert sum(rank.outcomes["busy"] for rank in ranks) - at_start <= 0.01 * sum(got), (
        "those that keep to it are refused"
    )
    requested = sum(rank.ledger.requested for rank in ranks)
    in_flight = sum(rank.dispatch.in_flight for rank in ranks)
    told = sum(sum(rank.outcomes.values()) for rank in ranks)
    assert requested >= told, "an answer to nothing"
    assert requested - in_flight - sum(rank.got for rank in ranks) <= at_start + 0.01 * sum(got), "decoded in vain"


@pytest.mark.parametrize("clip_s", [0.005, 0.1, 1.0, 1.5])
@pytest.mark.parametrize("ahead", [16, 1000])
def test_one_server_of_two_threads_lets_no_deadline_pass(clip_s: float, ahead: int) -> None:
    rng, clock = random.Random(1), Clock()
    server = Server(clock, threads=2)
    trainer = Client(name=b"t", clock=clock, servers=[server], ahead=ahead, clip_s=around(clip_s, rng), deadline_s=5.0)
    trainer.begin()
    clock.run(600.0 * clip_s)
    assert set(trainer.outcomes) == {"clip"}, trainer.outcomes
    assert trainer.got >= 0.95 * 1200, "a thread idled"


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_two_runs_share_the_decoding_time_whatever_their_clips_cost(weight: float) -> None:
    """One asks for clips of 16 frames in eight ranks, the other for clips of 4 in two."""
    rng, clock = random.Random(2), Clock()
    server = Server(clock, threads=4, shares={"large": weight})
    clients = [
        Client(name=f"large{n}".encode(), clock=clock, servers=[server], run="large", clip_s=around(0.08, rng))
        for n in range(8)
    ]
    clients += [
        Client(name=f"small{n}".encode(), clock=clock, servers=[server], run="small", clip_s=around(0.02, rng))
        for n in range(2)
    ]
    for client in clients:
        client.begin()
    clock.run(2.0)
    before = dict(server.busy_s)
    clock.run(32.0)
    large, small = (server.busy_s[run] - before[run] for run in ("large", "small"))
    assert large / small == pytest.approx(weight, rel=0.1)
    assert large + small >= 0.98 * 4 * 30, "threads idle while runs wait"


def test_a_run_alone_has_all_and_one_that_comes_gets_its_share_at_once() -> None:
    clock = Clock()
    server = Server(clock, threads=2)
    first = Client(name=b"a", clock=clock, servers=[server], run="first")
    second = Client(name=b"b", clock=clock, servers=[server], run="second")
    first.begin()
    clock.run(10.0)
    assert first.got == pytest.approx(1000, rel=0.01)
    second.begin()
    clock.run(11.0)
    assert second.got == pytest.approx(50, abs=5), "it pays for the time that it was not there, or is paid for it"


@pytest.mark.parametrize("run", ["same", "other"])
def test_an_evaluation_beside_training_waits_two_decodes_more_than_alone_at_most(run: str) -> None:
    """Its clips come one by one, as an evaluation of little prefetch asks for them; training asks for all it may."""
    clip_s = 0.02

    def waits(*, beside: bool) -> list[float]:
        rng, clock = random.Random(3), Clock()
        server = Server(clock, threads=2)
        trainers = [Client(name=f"t{n}".encode(), clock=clock, servers=[server], run="same") for n in range(8 * beside)]
        for trainer in trainers:
            trainer.begin()
        clock.run(2.0)
        evaluator = Client(
            name=b"e",
            clock=clock,
            servers=[server],
            ahead=1,
            run=run,
            work_class="eval",
            pause_s=rng.uniform(0.01, 0.03),
        )
        evaluator.begin()
        clock.run(12.0)
        assert not beside or min(trainer.got for trainer in trainers) > 20, "training starves"
        return evaluator.waits_s

    alone, beside = waits(beside=False), waits(beside=True)
    assert max(beside) - max(alone) <= 2 * clip_s + 1e-9
    assert mean(beside) - mean(alone) <= clip_s


def test_training_goes_on_under_an_evaluation_that_asks_for_everything() -> None:
    clock = Clock()
    server = Server(clock, threads=2)
    trainer = Client(name=b"t", clock=clock, servers=[server])
    evaluator = Client(name=b"e", clock=clock, servers=[server], work_class="eval", ahead=64)
    trainer.begin()
    evaluator.begin()
    clock.run(20.0)
    assert trainer.got >= 2000 / 18, "it has no turn after each sixteen"
    assert evaluator.got >= 0.9 * 2000
