"""What kills its process costs itself and nothing else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from decode_server.sources.isolated import GivenUp, run_isolated


def _work(task: tuple[str, int]) -> int:
    """Task ("once" file or a word, number): some of them end the process."""
    what, number = task
    if what == "deadly" or (what.startswith("/") and not Path(what).exists()):
        if what.startswith("/"):
            Path(what).touch()
        os.kill(os.getpid(), signal.SIGBUS)
    return number * number


@pytest.mark.slow
def test_a_deadly_task_is_given_up_and_all_others_are_done(tmp_path: Path) -> None:
    tasks = [("fine", number) for number in range(20)]
    tasks[3], tasks[11] = ("deadly", 3), (str(tmp_path / "once"), 11)
    done = dict(run_isolated(tasks, _work, jobs=2))
    dead = GivenUp("it ended the process that read it, twice")
    assert done == {task: dead if task[0] == "deadly" else task[1] ** 2 for task in tasks}


def _stand(task: tuple[str, int]) -> int:
    """A decoder that turns for ever, or a storage that never answers; or one that reads for longer than that."""
    what, number = task
    if what == "turns":
        while True:
            pass
    if what == "waits":
        os.read(os.pipe()[0], 1)
    for _ in range(number):
        Path("/proc/self/stat").read_bytes()
        time.sleep(0.1)
    return number


@pytest.mark.slow
@pytest.mark.parametrize("what", ["turns", "waits"])
def test_a_task_that_stands_is_given_up_and_one_that_reads_is_not(what: str) -> None:
    tasks = [("reads", 60), ("reads", 1), (what, 1), ("reads", 2), ("reads", 3)]
    done = dict(run_isolated(tasks, _stand, jobs=2, stall_s=4.0))
    stood = GivenUp("nothing was read for 4 s and nothing came of it, twice")
    assert done == {task: stood if task[0] == what else task[1] for task in tasks}
