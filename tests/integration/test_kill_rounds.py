"""Twenty rounds of kill -9 of trainer and servers: nothing is left behind, and what is resumed is the same bytes."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.batch_log import line_of
from tests.chaos.box import Box, fixed_bind
from tests.chaos.fleet import SERVER, boxes, make_videos, plan
from tests.chaos.footprint import left_behind
from tests.chaos.schedule import chaos_seed
from tests.chaos.trainer import Trainer
from tests.integration.serving import wait_until


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


def one_round(
    root: Path, tmp_path: Path, binds: list[str], rng: random.Random, *, seen: Callable[[], set[str]]
) -> None:
    """Start all, let the trainer get on by some batches, and kill all in any order; their traces were `seen`."""
    servers = [Box(tmp_path / "logs", root, *SERVER, bind=bind) for bind in binds]
    with Trainer(plan(root, tmp_path / "run", servers, steps=None, step_s=0.01)) as trainer:
        done = len(trainer.lines())
        goal = done + rng.randrange(3, 12)
        wait_until("some batches", lambda: len(trainer.lines()) >= goal or trainer.process.poll() is not None)
        assert trainer.process.poll() is None, trainer.said()
        wait_until("both servers", lambda: all(box.serving for box in servers))
        assert {trace.split()[0] for trace in seen()} >= {"port", "socket", "process"}
        victims = [trainer.process.pid, *(box.server.process.pid for box in servers)]
        rng.shuffle(victims)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    for box in servers:
        box.server.process.communicate(timeout=20)


def rounds(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, count: int) -> None:
    rng, temporary = random.Random(chaos_seed()), tmp_path / "tmp"
    print(f"FRAMEFEED_CHAOS_SEED={chaos_seed()}")
    for folder in (temporary, tmp_path / "logs"):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    binds = [fixed_bind("tcp"), fixed_bind("shm")]
    name, ports = binds[1].partition("@")[2], {int(binds[0].rpartition(":")[2])}

    def left() -> set[str]:
        return left_behind(tmp_path, ports=ports, temporary=temporary, name=name) - before

    before: set[str] = set()
    before = left()
    for _ in range(count):
        one_round(root, tmp_path, binds, rng, seen=left)
        wait_until("nothing is left", lambda: not left())
    trainer_lines = Trainer.log_of(tmp_path / "run")
    by_step = {line.step: line.identity for line in trainer_lines}
    assert all(line.identity == by_step[line.step] for line in trainer_lines), "a resumed batch differs"
    assert sorted(by_step) == list(range(len(by_step)))
    with boxes(tmp_path, root, count=1) as one, plan(root, tmp_path, one, steps=len(by_step)).open() as undisturbed:
        assert [line_of(batch).identity for batch in undisturbed] == [by_step[step] for step in sorted(by_step)]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_twenty_rounds(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(root, tmp_path, monkeypatch, count=20)
