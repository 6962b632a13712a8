"""The examples run as a user runs them, and go on after Ctrl-C; validation counts each sample once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from decode_server.indexing.index import build_index
from tests.videos import make_numbered_video

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("examples") / "root"
    for name in "abcde":
        make_numbered_video(root / f"{name}.mp4", frames=60)
    build_index(root)
    return root


def _begin(example: str, *args: object, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / example), *map(str, args)]
    return subprocess.Popen(
        command, cwd=cwd, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _done(example: str, *args: object, cwd: Path, **environment: str) -> str:
    process = _begin(example, *args, cwd=cwd, **environment)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize(("example", "needs"), [("plain_numpy.py", "numpy"), ("jax_iterator.py", "jax")])
def test_an_iterator_s_example_prints_three_batches(example: str, needs: str, root: Path, tmp_path: Path) -> None:
    pytest.importorskip(needs)
    assert len(_done(example, root, cwd=tmp_path).splitlines()) == 3


def test_fine_tuning_goes_on_after_ctrl_c_by_what_was_used(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("video,label\na,x\nb,x\nc,y\nd,y\ne,y\n")
    process = _begin("finetune_csv.py", root, table, cwd=tmp_path, EPOCHS="4000")
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode != 0
    steps = [int(line.split()[1]) for line in (first + rest).splitlines() if line.startswith("step ")]
    assert steps == list(range(len(steps))), err
    epochs = str((len(steps) + 2) * 4 // 5 + 1)
    said = _done("finetune_csv.py", root, table, cwd=tmp_path, EPOCHS=epochs).splitlines()
    assert said[0].startswith(f"step {len(steps)} ")
    assert said[-1].startswith("accuracy ")
    assert said[-1].endswith(" of 5")
