"""kill -9 of a parent: no child outlives it, be it a command's, a pool's, or one that comes too late."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.serving import PATIENCE_S, gone

# Each starts children that never end by themselves, says their process ids in one line, and waits.
CHILDREN = """
import sys
from pathlib import Path
from framefeed.cli.children import Children
with Children(Path(sys.argv[1])) as children:
    started = [children.start(name, ("sh", "-c", "echo up; exec sleep 600")) for name in ("one", "two")]
    while any(child.last_line() != "up" for child in started):
        started[0].wait(0.01)
    print(*(child._process.pid for child in started), flush=True)
    started[0].wait(600)
"""
POOL = """
import os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from framefeed.cli.parent_death import end_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),))
    print(pool.submit(os.getpid).result(60), flush=True)
    pool.submit(time.sleep, 600).result(600)
"""


@contextlib.contextmanager
def parent(folder: Path, text: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that runs `text`, and pidfds of the children that it says it has."""
    script = folder / "parent.py"
    script.write_text(text)
    process = subprocess.Popen([sys.executable, script, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    children = [os.pidfd_open(int(pid)) for pid in process.stdout.readline().split()]
    try:
        yield process, children
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        for child in children:
            os.close(child)


@pytest.mark.parametrize("text", [CHILDREN, POOL], ids=["children", "pool"])
def test_children_go_with_a_killed_parent(tmp_path: Path, text: str) -> None:
    with parent(tmp_path, text) as (process, children):
        assert children
        process.kill()
        assert all(gone(child) for child in children)


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    never_its_parent = str(os.getpid() + 1)
    command = [sys.executable, "-m", "framefeed.cli.parent_death", never_its_parent, "echo", "started"]
    late = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (late.returncode, late.stdout) == (1, "")


def test_a_command_keeps_its_arguments_its_exit_code_and_its_process_id() -> None:
    command = [sys.executable, "-m", "framefeed.cli.parent_death", str(os.getpid()), "sh", "-c", 'echo $$ "$1"; exit 7']
    with subprocess.Popen([*command, "sh", "a b"], stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate(timeout=PATIENCE_S)[0] == f"{process.pid} a b\n"
    assert process.returncode == 7
