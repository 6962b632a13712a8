"""How much memory this process holds, and how it gives back what it does not need. It knows nothing of who took it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_RESIDENT, _SHARED = 1, 2  # of the fields of /proc/self/statm

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt
_KEPT_BYTES, _FROM_HEAP_BYTES = 24 << 20, 32 << 20  # the latter the most that glibc allows

_libc = ctypes.CDLL(None)


def reuse_freed_memory() -> None:
    """Let malloc take messages of some MiB from what was freed: new pages for each cost more than its copy."""
    _libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    _libc.mallopt(_MMAP_THRESHOLD, _FROM_HEAP_BYTES)


class MemoryWatch:
    """This process's own memory, relative to what it held at its start. Opened before a sandbox forbids it."""

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._start_bytes = self._own_bytes()

    def grown_bytes(self) -> int:
        """How much more is resident now."""
        return self._own_bytes() - self._start_bytes

    def give_back(self) -> None:
        """Return what is free to the system."""
        _libc.malloc_trim(0)

    def _own_bytes(self) -> int:
        fields = os.pread(self._statm, 128, 0).split()
        return (int(fields[_RESIDENT]) - int(fields[_SHARED])) * _PAGE_BYTES


def data_bytes() -> int:
    """What RLIMIT_DATA counts of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmData:")) << 10
