"""A signal at any moment of a server's start ends it in good order: no traceback, of whichever of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.made_roots import root_of_a_clip
from tests.integration.serving import PATIENCE_S, SERVE, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of_a_clip(tmp_path_factory.mktemp("root"))


def started_by(pid: int) -> list[int]:
    """The children of a process and theirs."""
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(child) for child in task.read_text().split()]
    return children + [below for child in children for below in started_by(child)]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("fronts", "children"), [(1, 1), (1, 2), (2, 2), (2, 6)])
def test_a_signal_while_it_starts_is_no_traceback(
    root: Path, tmp_path: Path, stop: signal.Signals, fronts: int, children: int
) -> None:
    options = f"--bind tcp://127.0.0.1:0 --metrics-port 0 --threads 1 --workers {fronts} --fronts {fronts}".split()
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, *SERVE, str(root), *options], stdout=file, stderr=file)
    try:
        wait_until("its processes are there", lambda: len(started_by(process.pid)) >= children)
        below = started_by(process.pid)
        process.send_signal(stop)
        code = process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()
    assert code in (0, 130, -signal.SIGTERM)
    wait_until("none is left", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in below))
