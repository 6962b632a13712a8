"""Keeps this process's memory, descriptors and environment from others of its user. It knows not what is in them.

A debugger, a reader of /proc/PID/mem or a core file would show keys and tokens. The kernel then lets only who may trace
everything (CAP_SYS_PTRACE) look into /proc/PID; times and sizes (stat, statm, status) stay for all to read.
Source: prctl(2), PR_SET_DUMPABLE. Linux only.
"""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def keep_memory_private(*, private: bool = True) -> None:
    """From now on, or with `private` false no longer; what this process starts begins as any other. Raises OSError."""
    if _libc.prctl(_PR_SET_DUMPABLE, 0 if private else 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
