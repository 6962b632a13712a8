"""Training in two processes over a real server: the run of one, and ends that one line tells."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from framefeed_models.weights.checkpoint_folder import checkpoint_in, read_whole
from tests.integration import test_train
from tests.integration.serving import Server
from tests.integration.test_train import SMALL, Trainer, losses
from tests.unit.trainer.small_tasks import largest_difference

root, server = test_train.root, test_train.server  # its fixtures
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TWO = ("--nproc", "2", "--batch-clips", "4", "--steps")
ALONE = ("--batch-clips", "4", "--steps")
TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "framefeed.cli",
    "train",
    "mae",
)
LAUNCHED = ("-m", "framefeed.cli", "train", "mae", "--nproc", "2")


@pytest.fixture
def served(root: Path, server: Server) -> tuple[Path, str]:
    return root, server.endpoint


def finish(trainer: Trainer) -> tuple[int, str]:
    said = trainer.process.communicate(timeout=120)[0]
    return trainer.process.returncode, said


def words(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("framefeed:")]


def test_two_processes_are_one_run_whoever_starts_them(root: Path, server: Server, tmp_path: Path) -> None:
    with Trainer(root, tmp_path / "one", server, options=(*ALONE, "8")) as run:
        assert finish(run)[0] == 0
    with Trainer(root, tmp_path / "two", server, options=(*TWO, "8", "--parallel", "fsdp2")) as run:
        code, said = finish(run)
    assert (code, words(said)) == (0, [])
    command = [sys.executable, *TORCHRUN, str(root), "--out", str(tmp_path / "torchrun"), *SMALL, *ALONE, "8"]
    done = subprocess.run(
        [*command, "--servers", server.endpoint], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    wanted = losses(tmp_path / "one")
    assert len(wanted) == 8
    weights = read_whole(tmp_path / "one" / "step_000000008", prefix="model.")
    for name in ("two", "torchrun"):
        assert losses(tmp_path / name) == pytest.approx(wanted, abs=2e-6)
        found = checkpoint_in(tmp_path / name)
        assert found is not None
        assert largest_difference(read_whole(found, prefix="model."), weights) < 1e-5
        mine, other = (json.loads((tmp_path / name / f"summary{part}.json").read_text()) for part in ("", ".rank1"))
        assert (mine["steps"], other["steps"], mine["clips"]) == (8, 8, 32)
        assert (tmp_path / name / "run.rank1.json").exists()
    assert said.count("step 8/8") == 1, "rank 0 logs"


def test_one_process_goes_on_with_what_two_began_and_a_stop_ends_both_at_one_step(
    root: Path,
    server: Server,
    tmp_path: Path,
) -> None:
    with Trainer(root, tmp_path / "run", server, options=(*TWO, "100000")) as run:
        run.wait_for_step(5)
        code, steps = run.stop(signal.SIGTERM)
    assert code == 0
    assert json.loads((tmp_path / "run" / "summary.rank1.json").read_text())["last_step"] == steps
    more = (*ALONE, "100000", "--resume", "--lr", "5e-4", "--skip-step", str(steps))
    with Trainer(root, tmp_path / "run", server, options=more) as run:
        run.wait_for_step(steps + 3)
        run.stop(signal.SIGTERM)
    changes = json.loads((tmp_path / "run" / "changes.jsonl").read_text())
    changed = "lr was 0.001 and is 0.0005; nproc was 2 and is 1"  # what decides the weights, and how the run goes on
    assert changes == {"after_step": steps, "changes": changed, "skip_steps": [steps]}


def test_when_one_rank_is_killed_the_others_end_and_one_line_says_which(
    root: Path,
    server: Server,
    tmp_path: Path,
) -> None:
    with Trainer(root, tmp_path, server, options=(*TWO, "100000")) as run:
        run.wait_for_step(3)
        pids = [json.loads((tmp_path / name).read_text())["pid"] for name in ("run.json", "run.rank1.json")]
        os.kill(pids[1], signal.SIGKILL)
        said = run.process.communicate(timeout=30)[0]
        assert run.process.returncode == 1
    assert words(said) == ["framefeed: rank 1 was ended by SIGKILL; the other ranks were ended"]
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(
    ("start", "options", "says"),
    [
        (LAUNCHED, ("--batch-clips", "3"), "--batch-clips is 3, .* among 2 processes .* a multiple of 2, such as 4"),
        (LAUNCHED, ("--step", "many"), ".*--step"),
        (TORCHRUN, ("--micro-clips", "2"), "rank [01]: --micro-clips is 2, wanted what divides the 1 clips of a rank"),
        (TORCHRUN, ("--step", "many"), ".*--step"),
    ],
)
def test_bad_input_is_one_line_of_one_rank(
    served: tuple[Path, str], tmp_path: Path, start: tuple[str, ...], options: tuple[str, ...], says: str
) -> None:
    folder, url = served
    command = [sys.executable, *start, str(folder), "--out", str(tmp_path), *SMALL, *options, "--servers", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    (line,) = words(done.stderr)
    assert re.match(f"framefeed: {says}", line), line


def test_a_folder_of_another_run_is_one_line_too(root: Path, server: Server, tmp_path: Path) -> None:
    (tmp_path / "step_000000005").mkdir()
    with Trainer(root, tmp_path, server, options=(*TWO, "8")) as run:
        code, said = finish(run)
    assert code == 2
    wanted = "step_000000005 of an earlier run; wanted --resume or another --out"
    assert words(said) == [f"framefeed: rank 0: --out {tmp_path} holds {wanted}"]


def test_a_folder_or_port_in_use_and_a_checkpoint_of_another_run_are_one_line_of_one_rank(
    root: Path, server: Server, tmp_path: Path
) -> None:
    """What another process has, another model's weights, and a run of a world that does not divide the batch."""
    with Trainer(root, tmp_path / "run", server, options=(*TWO, "2")) as run:
        code, said = finish(run)
    assert code == 0, said
    resume = (*TWO, "2", "--resume")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        behind = str(port - 1)  # rank 1's is one more than rank 0's
        refused = {
            r"rank 0: --out .* is in use by another run; wanted another --out, or its end": resume,
            rf"rank 1: --metrics-port {port} of 127\.0\.0\.1 cannot be taken": (*resume, "--metrics-port", behind),
            r"rank [01]: checkpoint .* is of another run: frames was 2 and is 4": (
                *resume,
                "--frames",
                "4",
            ),
            r"--batch-clips is 4, .* among 3 processes .* a multiple of 3, such as 6": (*resume, "--nproc", "3"),
        }
        for line, options in refused.items():
            held = os.open(tmp_path / "run", os.O_RDONLY)
            if "in use by" in line:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                with Trainer(root, tmp_path / "run", server, options=options) as run:
                    code, said = finish(run)
            finally:
                os.close(held)
            assert code == 2, said
            (told,) = words(said)
            assert re.match(f"framefeed: {line}", told), told
