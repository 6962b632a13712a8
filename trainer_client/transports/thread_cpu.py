"""CPU time of threads of this process that Python may not have started, by the kernel's ids; knows not what they do."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def threads_named(prefix: str) -> list[int]:
    """The ids of the threads whose names, as the kernel has them, begin so."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it has ended
            if Path(f"/proc/self/task/{task}/comm").read_text().startswith(prefix):
                found.append(int(task))
    return found


def thread_cpu_s(thread_id: int) -> float:
    """CPU seconds of a thread so far. Raises OSError once it has ended.

    Its clock is spelled as the kernel spells it, for pthread_getcpuclockid takes no foreign thread.
    """
    return time.clock_gettime(~thread_id << 3 | 6)
