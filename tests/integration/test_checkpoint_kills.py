"""Two ranks killed at any moment, also inside a save: what goes on is the run that nobody disturbed, to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from framefeed_models.weights.checkpoint_folder import read_whole
from tests.integration import test_train
from tests.integration.serving import Server, parse_metrics, wait_until

root, server = test_train.root, test_train.server  # its fixtures
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS, WORLD = 60, 2


class Ranks:
    """The two processes of a run; within `with`, and gone after it."""

    def __init__(self, root: Path, out: Path, server: str, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.out = out
        out.mkdir(exist_ok=True)
        names = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", "tests.integration.logged_trainer", str(root), str(out), server, str(STEPS)]
        self.processes = [
            subprocess.Popen(
                [*command, *options],
                env={**os.environ, **names, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(WORLD)
        ]

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate(timeout=60)

    def finish(self) -> list[str]:
        """What each said, once all have ended well."""
        said = [process.communicate(timeout=240)[0] for process in self.processes]
        assert [process.returncode for process in self.processes] == [0] * WORLD, said
        return said

    def waits(self, rank: int) -> bool:
        """Whether a rank says that no server is up: what it has not by then does not come."""
        run = json.loads((self.out / ("run.rank1.json" if rank else "run.json")).read_text())
        page = parse_metrics(urllib.request.urlopen(run["metrics_url"], timeout=10).read().decode())
        return any(name.startswith("framefeed_client_server_up") and value == 0 for name, value in page.items())

    def wait(self, what: str, reached: Callable[[], bool]) -> None:
        def alive() -> bool:
            assert all(process.poll() is None for process in self.processes), self.finish()
            return reached()

        wait_until(what, alive, patience_s=120)


def used(out: Path) -> list[dict[str, list[object]]]:
    """By rank, the samples of each step, of the last time that it was taken; those before must be the same."""
    ranks = []
    for rank in range(WORLD):
        steps: dict[str, list[object]] = {}
        for line in (out / f"used.rank{rank}.jsonl").read_text().splitlines():
            told = json.loads(line)
            samples = [told["positions"], told["samples"]]
            assert steps.setdefault(told["step"], samples) == samples
        ranks.append(steps)
    return ranks


def last_step(out: Path) -> int:
    log = out / "used.rank0.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return max((json.loads(line)["step"] for line in lines), default=-1)


def hidden(out: Path) -> Sequence[Path]:
    return list(out.glob(".step_*"))


def kill_in_a_save(ranks: Ranks) -> None:
    """SIGKILL to both while a checkpoint is being made."""
    while not hidden(ranks.out):
        assert all(process.poll() is None for process in ranks.processes), ranks.finish()
        time.sleep(0.0005)
    for process in ranks.processes:
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_kills_change_neither_a_weight_nor_a_sample(root: Path, server: Server, tmp_path: Path, parallel: str) -> None:
    calm, out = tmp_path / "calm", tmp_path / "killed"
    options = ("--parallel", parallel, "--every", "7")
    with Ranks(root, calm, server.endpoint, *options) as ranks:
        ranks.finish()
    rng = random.Random(parallel)
    for moment in range(2):
        with Ranks(root, out, server.endpoint, *options) as ranks:
            at = 8 + 14 * moment + rng.randrange(12)
            ranks.wait(f"step {at}", lambda at=at: last_step(out) >= at)  # type: ignore[misc]
            for process in rng.sample(ranks.processes, WORLD):
                process.send_signal(signal.SIGKILL)
    for _ in range(10):  # until one has hit between the folder's making and its rename
        with Ranks(root, out, server.endpoint, *options, "--every", "1") as ranks:
            kill_in_a_save(ranks)
        if hidden(out):
            break
    assert hidden(out), "the kill was inside a save"
    with Ranks(root, out, server.endpoint, *options) as ranks:
        said = ranks.finish()
    assert "resuming after step" in said[0]
    assert not hidden(out), "what the killed save has left is gone"
    name = f"step_{STEPS:09d}"
    for prefix in ("model.", "optimizer.", "average."):
        mine, theirs = (read_whole(folder / name, prefix=prefix) for folder in (out, calm))
        assert mine.keys() == theirs.keys() != set()
        assert all(torch.equal(tensor, theirs[known]) for known, tensor in mine.items())
    assert used(out) == used(calm)
    assert [sorted(steps) for steps in used(out)] == [list(range(STEPS))] * WORLD


def test_a_stop_while_all_ranks_wait_for_data_ends_all_after_the_same_step(
    root: Path, server: Server, tmp_path: Path
) -> None:
    """Both have done the same steps when their only server is gone, and nobody waits for what does not come."""
    with (
        Server(tmp_path, str(root), *test_train.SERVER, program=test_train.SERVE) as doomed,
        Ranks(root, tmp_path / "run", doomed.endpoint) as ranks,
    ):
        ranks.wait("step 5", lambda: last_step(tmp_path / "run") >= 5)
        doomed.signal(signal.SIGKILL)
        ranks.wait("no server", lambda: all(ranks.waits(rank) for rank in range(WORLD)))
        for process in ranks.processes:
            process.send_signal(signal.SIGTERM)
        ranks.finish()
    summaries = [json.loads((tmp_path / "run" / name).read_text()) for name in ("summary.json", "summary.rank1.json")]
    assert [summary["ending"] for summary in summaries] == ["stopped by a signal"] * WORLD
    (last,) = {summary["last_step"] for summary in summaries}
    assert (tmp_path / "run" / f"step_{last:09d}").is_dir()
    with Ranks(root, tmp_path / "run", server.endpoint) as ranks:
        ranks.finish()
    assert [sorted(steps) for steps in used(tmp_path / "run")] == [list(range(STEPS))] * WORLD
