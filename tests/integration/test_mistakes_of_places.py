"""What a newcomer's disks and servers do to a run: full, read-only, changed, lost. One line each, no traceback.

A full disk is a tmpfs of one page, a read-only one a mount, both in a mount namespace of the command.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from decode_server.indexing.index import build_index
from tests.integration.serving import SERVE, Server
from tests.integration.test_train import SERVER, SMALL, Trainer
from tests.videos import make_numbered_video

FULL = "mount -t tmpfs -o size=4k tmpfs disk"
READ_ONLY = "mount --bind plain disk && mount -o remount,ro,bind disk"
TRAIN = ("train", "mae", "root", *SMALL, "--steps", "2")
# What the disk is like, the command in a folder with `root` (indexed), `plain` (not) and `disk`, and its line.
PLACES = {
    "full: the index": (FULL, ("index", "plain", "--index", "disk"), r"the index cannot be written to disk \(No space"),
    "full: chunks": (
        FULL,
        ("chunk", "plain", "--out", "disk"),
        r"chunks of a cannot be written: No space left .*B are free at disk, wanted some .*B for the \d left",
    ),
    "full: a run": (FULL, (*TRAIN, "--out", "disk/run"), "disk/run/.* cannot be used: No space left on device"),
    "read-only: the index": (
        READ_ONLY,
        ("index", "disk"),
        r"the index cannot be written to disk \(Read-only file system\); wanted --index FOLDER, one that can, as '",
    ),
    "read-only: chunks": (
        READ_ONLY,
        ("chunk", "plain", "--out", "disk/out"),
        "--out disk/out cannot be made a folder: Read-only file system",
    ),
    "read-only: a run": (
        READ_ONLY,
        (*TRAIN, "--out", "disk/run"),
        "--out disk/run cannot be made: Read-only file system",
    ),
    "read-only: the registry": (
        READ_ONLY,
        ("serve", "root", "--bind", "tcp://127.0.0.1:0", "--registry", "disk/r"),
        r"--registry: disk/r cannot be made \(Read-only file system\)",
    ),
}
pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in ("root", "plain"):
        make_numbered_video(tmp_path / folder / "a.mp4", frames=60)
    (tmp_path / "disk").mkdir()
    build_index(tmp_path / "root")
    return tmp_path


def _typed(place: Path, *words: str, first: str = "true") -> str:
    """The one line with which a command that has to fail ends."""
    command = ("unshare", "--mount", "sh", "-c", f'{first} && exec "$@"', "sh", sys.executable, "-m", "framefeed.cli")
    done = subprocess.run([*command, *words], cwd=place, capture_output=True, text=True, timeout=100, check=False)
    return _line(done.returncode, done.stderr)


def _line(code: int, said: str) -> str:
    assert code in (1, 2), said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("framefeed: ")]
    return line.removeprefix("framefeed: ")


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="this process may make no mount namespace",
)
@pytest.mark.parametrize("case", PLACES)
def test_a_disk_that_takes_nothing_is_one_line(place: Path, case: str) -> None:
    first, words, says = PLACES[case]
    assert re.match(says, line := _typed(place, *words, first=first)), line


def test_a_file_that_changed_after_it_was_indexed_is_named(place: Path) -> None:
    make_numbered_video(place / "root/a.mp4", frames=40)
    line = _typed(place, *TRAIN, "--out", "run")
    assert re.match(r"clip of a \[.*\) s: a\.mp4 ", line), line


def test_another_data_set_of_a_run_that_goes_on_is_refused(place: Path) -> None:
    run = [sys.executable, "-m", "framefeed.cli", *TRAIN, "--out", "run"]
    subprocess.run(run, cwd=place, check=True, capture_output=True, timeout=100)
    shutil.copy(place / "plain/a.mp4", place / "root/b.mp4")
    build_index(place / "root")
    line = _typed(place, *TRAIN, "--out", "run", "--resume")
    assert re.match(r"checkpoint run/step_000000002 is on another data set: samples was \d+ and is \d+; use the", line)


def test_a_server_that_is_lost_after_the_start_is_named_by_the_run_that_it_ends(place: Path, tmp_path: Path) -> None:
    with (
        Server(tmp_path, str(place / "root"), *SERVER, program=SERVE) as server,
        Trainer(place / "root", tmp_path / "run", server, options=("--watchdog-s", "5")) as run,
    ):
        run.wait_for_step(2)
        server.signal(signal.SIGKILL)
        said = run.process.communicate(timeout=100)[0]
        line = _line(run.process.returncode, said)
        assert server.endpoint in line, line
