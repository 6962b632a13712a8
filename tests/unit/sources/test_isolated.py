"""What kills its process costs itself and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from decode_server.sources.isolated import run_isolated


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
    assert done == {task: None if task[0] == "deadly" else task[1] ** 2 for task in tasks}
