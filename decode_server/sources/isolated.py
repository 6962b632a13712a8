"""Work on files in processes of their own, in any order: a file that kills its process costs itself and no other.

A decoder may crash, and a file that is cut off while it is mapped ends whoever reads it. What was in flight then is
tried again alone, and what kills its process again is given up. It knows nothing of the work.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from framefeed.cli.parent_death import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_isolated(
    tasks: Sequence[Task], work: Callable[[Task], Result], *, jobs: int
) -> Iterator[tuple[Task, Result | None]]:
    """Each task with what `work` says of it, `jobs` at a time, as they end; None where its process died, twice.

    Blocks until all are done. Raises what `work` raises.
    """
    waiting, suspects = deque(tasks), deque[Task]()
    while waiting or suspects:
        alone = bool(suspects)
        queue = deque([suspects.popleft()]) if alone else waiting
        for task, result, died in _round(queue, work, 1 if alone else min(jobs, len(queue))):
            if not died:
                yield task, result
            elif alone:
                yield task, None
            else:
                suspects.append(task)


def _round(queue: deque[Task], work: Callable[[Task], Result], jobs: int) -> Iterator[tuple[Task, Result | None, bool]]:
    """The tasks of a queue until it is empty or a process dies; then those in flight are given as ones that died."""
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        running: dict[Future[Result], Task] = {}
        broken = False
        while (queue and not broken) or running:
            while queue and not broken and len(running) < 2 * jobs:
                try:
                    running[pool.submit(work, queue[0])] = queue[0]
                    queue.popleft()
                except BrokenProcessPool:
                    broken = True
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    yield task, future.result(), False
                except BrokenProcessPool:
                    broken = True
                    yield task, None, True
