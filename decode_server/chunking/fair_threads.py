"""Keeps an encoder from taking the machine: SVT-AV1, where it may, makes its process real-time before all others.

Opened by root, its library puts the calling thread at SCHED_FIFO 99, which its own threads inherit (4.1.0), and every
process that is started from there on: two such encoders leave a two-core machine nothing, servers and trainers wait for
seconds. It has no option against that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextlib.contextmanager
def fair_threads() -> Iterator[None]:
    """Within it an encoder is opened; after it all threads of this process are scheduled as the caller was."""
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in map(int, os.listdir(_THREADS)):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, param)
