"""What processes can leave behind: shared memory, ports, temporary files, other processes. It changes none of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"


def left_behind(folder: Path, *, ports: set[int], temporary: Path, name: str) -> set[str]:
    """What there is of a test's processes, each as one line: shared memory of /dev/shm that no process has open, those
    of `ports` that are open, Unix sockets called `name`, files in `temporary`, processes that name `folder`.
    """
    return {
        *(f"shared memory {entry}" for entry in _orphans()),
        *(f"port {port}" for port in ports & _open_ports()),
        *(f"socket {path}" for path in _unix_sockets() if name in path),
        *(f"file {path}" for path in temporary.rglob("*")),
        *(f"process {line}" for line in mentioning(folder)),
    }


def mentioning(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a folder."""
    lines = (data.replace(b"\0", b" ").decode(errors="replace") for data in _of_each_process("cmdline"))
    return [line for line in lines if str(folder) in line]


def _orphans() -> set[str]:
    """Entries of /dev/shm that no process maps: what a living one holds is its own, and perhaps of another test."""
    entries = set(os.listdir("/dev/shm"))
    if entries:
        mapped = b"".join(_of_each_process("maps"))
        entries = {entry for entry in entries if f"/dev/shm/{entry}".encode() not in mapped}
    return entries


def _of_each_process(file: str) -> Iterator[bytes]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / file).read_bytes()
        except OSError:  # it ended meanwhile, or is another user's
            continue


def _open_ports() -> set[int]:
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == _LISTEN}


def _unix_sockets() -> list[str]:
    rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [row[7] for row in rows if len(row) > 7]
