"""Work pinned to one core, and the CPU time that it took. Knows nothing of what is done."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from framefeed.errors import BadInput

R = TypeVar("R")

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def two_cores() -> tuple[int, int]:
    """Two cores of this process, one for each side. Raises BadInput where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BadInput(f"bench: this process may use core {cores[0]} only, wanted two: one for each side")
    return cores[0], cores[1]


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """What this thread starts within is pinned to the core, and so is what that starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_on_core(core: int, work: Callable[[], R]) -> R:
    """The result of picklable work in a new process of its own, pinned to the core. Blocks until it is done."""
    context = multiprocessing.get_context("spawn")
    with on_core(core), ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work).result()


def cpu_s(pid: int) -> float:
    """CPU seconds so far of a process and of those that it started and that live, to some 10 ms."""
    return own_cpu_s(pid) + sum(cpu_s(child) for child in children_of(pid))


def own_cpu_s(pid: int) -> float:
    """The same of the process alone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def children_of(pid: int) -> list[int]:
    """Processes that a process's first thread started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
