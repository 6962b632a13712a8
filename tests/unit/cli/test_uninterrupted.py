"""Ctrl-C goes to every process of a command: those that it started take none, from their first moment on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from framefeed.cli.interrupts import held
from tests.integration.serving import wait_until
from tests.videos import make_numbered_video


def _holds() -> bool:
    """Whether a process that is started now begins with SIGINT held."""
    said = subprocess.run(["grep", "SigBlk", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    return bool(int(said.split()[1], 16) >> (signal.SIGINT - 1) & 1)


def test_a_process_begins_with_the_interrupts_held_and_this_one_takes_its_own_afterwards() -> None:
    seen = []
    with pytest.raises(KeyboardInterrupt):
        _interrupt_held(seen)
    assert seen == [True, True]
    assert not _holds()


def _interrupt_held(seen: list[bool]) -> None:
    with held():
        seen.append(_holds())
        signal.raise_signal(signal.SIGINT)
        seen.append(signal.SIGINT in signal.sigpending())


@pytest.mark.slow
@pytest.mark.parametrize("verb", [("chunk", "--out", "out"), ("index", "--check")])
def test_an_interrupt_at_the_start_of_a_commands_processes_is_one_line(tmp_path: Path, verb: tuple[str, ...]) -> None:
    for number in range(2):
        make_numbered_video(tmp_path / "videos" / f"{number}.mp4", frames=60)
    name, *options = verb
    command = [sys.executable, "-m", "framefeed.cli", name, "videos", *options]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until("processes", lambda: len(_spawned(children)) > 0, patience_s=60)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert said.splitlines() == ["framefeed: interrupted"]


def _spawned(children: Path) -> list[str]:
    """The processes of `multiprocessing` that do its work: they import still."""
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in children.read_text().split()]
    return [line for line in lines if "spawn_main" in line]
