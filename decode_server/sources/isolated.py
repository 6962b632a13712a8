"""Work on files in processes of their own, in any order: a file that ends or holds up its process costs itself alone.

A decoder may crash or turn for ever, a file that is cut off while it is mapped ends whoever reads it, and a storage may
never answer. What was in flight then is tried again alone, and what does so again is given up. It knows nothing of the
work, but that whoever works on a file reads.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from framefeed.cli.interrupts import held
from framefeed.cli.uninterrupted import begin_uninterrupted

log = logging.getLogger("framefeed.sources")

Task = TypeVar("Task")
Result = TypeVar("Result")

STALL_S = 300.0
_LOOKS = 60  # within that time


class GivenUp(str):
    """Why a task has no result."""

    __slots__ = ()


def run_isolated(
    tasks: Sequence[Task], work: Callable[[Task], Result], *, jobs: int, stall_s: float = STALL_S
) -> Iterator[tuple[Task, Result | GivenUp]]:
    """Each task with what `work` says of it, `jobs` at a time, as they end; or why it was given up: twice its process
    died, or nothing was read for `stall_s` and nothing came.

    Blocks until all are done. Raises what `work` raises.
    """
    waiting, suspects = deque(tasks), deque[Task]()
    while waiting or suspects:
        alone = bool(suspects)
        queue = deque([suspects.popleft()]) if alone else waiting
        crew = _Crew(1 if alone else min(jobs, len(queue)), stall_s)
        for task, future in crew.outcomes(queue, work):
            try:
                yield task, future.result()
            except BrokenProcessPool:
                if not alone:
                    suspects.append(task)
                    continue
                stood = f"nothing was read for {stall_s:g} s and nothing came of it, twice"
                yield task, GivenUp(stood if crew.stalled else "it ended the process that read it, twice")


@dataclass(slots=True)
class _Crew:
    """Processes for the tasks of a queue, until it is empty, one of them dies, or all of them stand and are killed."""

    jobs: int
    stall_s: float
    stalled: bool = False
    _read_bytes: int = -1
    _read_s: float = field(default_factory=time.monotonic)

    def outcomes(self, queue: deque[Task], work: Callable[[Task], Result]) -> Iterator[tuple[Task, Future[Result]]]:
        """Tasks that were taken from the queue, each with its result, or with that its process died. Whoever leaves
        before the end, on an interrupt say, has the processes killed.
        """
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(
            self.jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=begin_uninterrupted,
            initargs=(os.getpid(),),
        ) as pool:
            try:
                yield from self._outcomes_of(pool, queue, work, others=others)
            except BaseException:
                for process in set(multiprocessing.active_children()) - others:
                    process.kill()
                raise

    def _outcomes_of(
        self,
        pool: ProcessPoolExecutor,
        queue: deque[Task],
        work: Callable[[Task], Result],
        *,
        others: Collection[BaseProcess],
    ) -> Iterator[tuple[Task, Future[Result]]]:
        running: dict[Future[Result], Task] = {}
        broken = False
        while (queue and not broken) or running:
            while queue and not broken and len(running) < 2 * self.jobs:
                try:
                    with held():
                        running[pool.submit(work, queue[0])] = queue[0]
                    queue.popleft()
                except BrokenProcessPool:
                    broken = True
            done = wait(running, timeout=self.stall_s / _LOOKS, return_when=FIRST_COMPLETED).done
            for future in done:
                broken = broken or isinstance(future.exception(), BrokenProcessPool)
                yield running.pop(future), future
            if done:
                self._read_s = time.monotonic()
            else:
                self._look(set(multiprocessing.active_children()).difference(others))

    def _look(self, processes: Iterable[BaseProcess]) -> None:
        """Kill processes of which none has read anything for too long, while nothing came of them."""
        read_bytes = sum(_read_bytes(process) for process in processes)
        if read_bytes != self._read_bytes:
            self._read_bytes, self._read_s = read_bytes, time.monotonic()
        elif time.monotonic() - self._read_s >= self.stall_s:
            log.warning("nothing was read for %g s and no file ended: what is in flight is tried again", self.stall_s)
            self.stalled = True
            for process in processes:
                process.kill()


def _read_bytes(process: BaseProcess) -> int:
    """What a process has read of files and pipes so far, cached or not; 0 where that is not told."""
    try:
        counts = Path(f"/proc/{process.pid}/io").read_text().split()
        return int(counts[counts.index("rchar:") + 1])
    except (OSError, ValueError):
        return 0
