"""Which CPUs of which CPU sockets this process may use, and how many workers to place on them.

Pure over a sysfs tree, a cgroup tree and a set of allowed CPUs given as arguments; it pins and starts nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.show_value import show_value

SYSFS_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """A CPU socket and its CPUs that this process is allowed to run on, in ascending order."""

    id: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSlot:
    """Where one worker runs: pinned to the allowed CPUs of one socket."""

    socket: int
    cpus: tuple[int, ...]


def read_sockets(sysfs_cpus: Path, allowed: frozenset[int]) -> tuple[Socket, ...]:
    """The sockets that hold the allowed CPUs, by id; CPUs whose socket the kernel does not tell count as socket 0."""
    cpus_of: dict[int, list[int]] = {}
    for cpu in sorted(allowed):
        try:
            package = int((sysfs_cpus / f"cpu{cpu}" / "topology" / "physical_package_id").read_text())
        except (OSError, ValueError):
            package = 0
        cpus_of.setdefault(max(package, 0), []).append(cpu)
    return tuple(Socket(id=package, cpus=tuple(cpus)) for package, cpus in sorted(cpus_of.items()))


def choose_sockets(sockets: tuple[Socket, ...], wanted: str) -> tuple[Socket, ...]:
    """The sockets named in `wanted` ("0,1"; "" means all). Raises BadInput for one that is not there."""
    if not wanted.strip():
        return sockets
    known = {socket.id: socket for socket in sockets}
    chosen: dict[int, Socket] = {}
    for part in wanted.split(","):
        if not part.strip().isdecimal() or int(part) not in known:
            have = ", ".join(str(id) for id in known)
            raise BadInput(
                f"--sockets: {show_value(part.strip())} is no CPU socket this process may use; it may use {have}"
            )
        chosen[int(part)] = known[int(part)]
    return tuple(chosen.values())


def plan_worker_slots(
    sockets: tuple[Socket, ...], *, workers: int | None, threads: int, quota_cpus: float | None
) -> tuple[WorkerSlot, ...]:
    """One slot a worker: `workers` on each socket, or by default one for each `threads` of its CPUs.

    A cgroup's CPU quota lowers the default, shared over the sockets by their CPUs; at least one worker a socket.
    """
    total = sum(len(socket.cpus) for socket in sockets)
    share = 1.0 if quota_cpus is None else min(1.0, quota_cpus / total)
    slots: list[WorkerSlot] = []
    for socket in sockets:
        count = max(1, math.ceil(len(socket.cpus) * share) // threads) if workers is None else workers
        slots += [WorkerSlot(socket=socket.id, cpus=socket.cpus)] * count
    return tuple(slots)
