"""More servers than there are descriptors: those that are there serve the run, the others take turns."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clip_servers import ClipServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def crowded(limit: int, up: int, *urls: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.crowded_trainer", str(limit), str(up), *urls]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.timeout(300)
def test_three_living_servers_of_four_hundred_are_found_within_a_hundred_descriptors() -> None:
    with ExitStack() as stack:
        urls = [f"tcp://127.1.{number // 250}.{number % 250 + 1}:9" for number in range(397)]  # nobody is there
        for at in (350, 120, 399):
            urls.insert(at, stack.enter_context(ClipServer()).url)
        run = crowded(100, 3, *urls)
    assert (run.returncode, run.stdout) == (0, "3 up, limit 100\n"), run.stderr[-2000:]
    assert run.stderr.count("cannot be connected to now") == 1, "it is said once"
    assert "of 100 descriptors are in use" in run.stderr


@pytest.mark.timeout(300)
def test_seven_hundred_living_and_dead_servers_are_connected_to_where_there_is_room() -> None:
    """ZeroMQ's own limit of 1,023 sockets was that of 341 servers."""
    with ExitStack() as stack:
        urls = [f"tcp://127.1.{number // 250}.{number % 250 + 1}:9" for number in range(700)]
        urls += [stack.enter_context(ClipServer()).url for _ in range(2)]
        run = crowded(8000, 2, *urls)
    assert (run.returncode, run.stdout) == (0, "2 up, limit 8000\n"), run.stderr[-2000:]
    assert run.stderr == ""


def test_servers_of_other_transports_take_turns_as_well() -> None:
    with ExitStack() as stack:
        urls = [f"grpc://127.1.0.{number + 1}:9" for number in range(40)]
        urls += [f"shm://@nobody{number}" for number in range(40)]
        urls += [stack.enter_context(ClipServer()).url]
        run = crowded(100, 1, *urls)
    assert (run.returncode, run.stdout) == (0, "1 up, limit 100\n"), run.stderr[-2000:]


def test_without_room_for_a_single_one_the_run_ends_in_one_line() -> None:
    last = crowded(40, 1, "tcp://127.1.0.1:9").stderr.splitlines()[-1]
    assert "ResourceExhausted: no server has been connected to for 10 s" in last
    assert "of 40 descriptors are in use for 0 connections and others, 32 kept free" in last
