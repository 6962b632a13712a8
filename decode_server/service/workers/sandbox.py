"""The sandbox of a worker: what a decoder that a hostile video has taken over can still do, which is next to nothing.

It may read the videos and the program's own files, use what was open before, and fill its own memory up to a bound. It
cannot open sockets, write or create files, start programs, or look into other processes. Each part is put in force
where the system has it, and said where it has not. Called once, before the first byte of a video is decoded.
"""

from __future__ import annotations

import os
import resource
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from decode_server.service.workers.landlock import restrict_to_reading
from decode_server.service.workers.seccomp import forbid_calls, forbid_new_privileges
from framefeed.show_value import one_line

_MAX_PARTS, _MAX_CHARS = 16, 200
_SECCOMP = "seccomp"
MEMORY_BYTES = 4 << 30  # of one worker's own; decoding 8K takes about 1.5 GiB


class Sandbox(Struct, frozen=True, array_like=True):
    """What is in force, and what is not, and why; both in words for the log."""

    in_force: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        words = (*self.in_force, *self.missing)
        if len(words) > _MAX_PARTS or any(len(word) > _MAX_CHARS for word in words):
            raise ValueError(f"a sandbox has at most {_MAX_PARTS} parts of {_MAX_CHARS} characters")

    def __str__(self) -> str:
        lacking = f"; not in force: {', '.join(self.missing)}" if self.missing else ""
        return f"{', '.join(self.in_force) or 'nothing'}{lacking}"


def enter_sandbox(
    readable: Iterable[Path],
    *,
    memory_bytes: int = MEMORY_BYTES,
    allowed_calls: tuple[str, ...] = (),
    bind_ports: tuple[int, ...] = (),
) -> Sandbox:
    """Give up all that decoding the files beneath `readable` does not need, for good. Never raises OSError.

    System calls that are named in `allowed_calls` are kept; where those have `bind`, TCP sockets get `bind_ports` only.
    It holds for this thread and those started after it; for all of a process if called before others start.
    """
    time.localtime()  # which reads the time zone's file, for log lines
    in_force, missing = [], []
    parts: tuple[tuple[str, Callable[[], str]], ...] = (
        ("memory limit", lambda: _limit(memory_bytes)),
        ("no_new_privs", _no_new_privileges),
        ("Landlock", lambda: restrict_to_reading((*readable, *program_files()), bind_ports=bind_ports)),
        (_SECCOMP, lambda: forbid_calls(allowed=allowed_calls)),
    )
    for name, put_in_force in parts:
        try:
            in_force.append(put_in_force())
        except (OSError, ValueError) as error:
            missing.append(one_line(f"{name} ({error})", chars=_MAX_CHARS))
    return Sandbox(in_force=tuple(in_force), missing=tuple(missing))


def leave_fewer_calls(sandbox: Sandbox, *, allowed_calls: tuple[str, ...]) -> Sandbox:
    """Give up system calls that only the start needed, in all threads; returns what is in force then."""
    if any(part.startswith(_SECCOMP) for part in sandbox.missing):
        return sandbox
    kept = tuple(part for part in sandbox.in_force if not part.startswith(_SECCOMP))
    try:
        return Sandbox(in_force=(*kept, forbid_calls(allowed=allowed_calls)), missing=sandbox.missing)
    except OSError as error:
        why = one_line(f"{_SECCOMP} after the start ({error})", chars=_MAX_CHARS)
        return Sandbox(in_force=sandbox.in_force, missing=(*sandbox.missing, why))


def program_files() -> list[Path]:
    """Where Python's modules and the libraries that they load lie; no configuration and no user's files."""
    found = {*sys.path, *sysconfig.get_paths().values(), "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib"}
    return [Path(path) for path in sorted(found) if path and path != "/"]


def clean_environment() -> dict[str, str]:
    """What a worker may know of its parent's environment: how to find and run Python, and nothing secret."""
    kept = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR", "HOME")
    prefixes = ("PYTHON", "FRAMEFEED_", "COVERAGE_", "OPENBLAS_", "GRPC_")
    return {key: value for key, value in os.environ.items() if key in kept or key.startswith(prefixes)}


def _no_new_privileges() -> str:
    forbid_new_privileges()
    return "no_new_privs"


def _limit(memory_bytes: int) -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold others' frames
    return f"{limit >> 20} MiB of memory"
