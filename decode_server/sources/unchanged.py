"""Whether a file still is what it was when its reading began: the one look behind each reading of a source, and one
more at the end of a verb. It knows no verbs and keeps nothing.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

_RECENT_S = 60.0  # a file that was written to so lately may still be open to its writer


def change_since(path: Path, *, size_bytes: int, mtime_ns: int, when: str = "while it was read") -> str:
    """Why what was read of a file is not used, empty where its size and its time of change are still those, and nobody
    who wrote to it within the last minute still has it open for more, as far as the file system tells.
    """
    try:
        now = path.stat()
        now_bytes, now_ns = now.st_size, now.st_mtime_ns
    except OSError:
        now_bytes, now_ns = 0, 0
    if (now_bytes, now_ns) != (size_bytes, mtime_ns):
        return f"changed {when} ({size_bytes} to {now_bytes} bytes); try again when it is complete"
    if abs(time.time() - now_ns / 1e9) < _RECENT_S and _is_being_written(path):
        return f"is still open to a program that writes to it ({now_bytes} bytes so far); try again when it is complete"
    return ""


def _is_being_written(path: Path) -> bool:
    """Whether any process here has a file open for writing: what a read lease is refused for (Linux, own files on local
    file systems; of others it is not told).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(
            descriptor, fcntl.F_SETSIG, signal.SIGURG
        )  # who opens it meanwhile ends the lease, not this process
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
