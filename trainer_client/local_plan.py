"""What a decode server on the trainer's own machine may take of it: which CPUs, and how much memory. Pure.

Each rank of a node has a server of its own with an even part of what is spare, so that one that ends takes nothing from
the others and many cores have many fronts.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from framefeed.errors import BadInput

_MIB = 1 << 20
_CPU_BYTES = 256 * _MIB  # memory for each decoding CPU: a worker has two and takes 150 to 400 MiB
_POOL_PART = 16  # of the memory there is
_POOL_MIB, _POOL_LEAST_MIB = 256, 32
_POOL_CLIPS = 8  # a buffer pool has room for so many, however little memory there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine gives its `ranks` ranks: CPUs that this one may run on, which are its own if it is `pinned`
    apart from the others; CPUs' worth of time and bytes of memory for all ranks, None for no limit.
    """

    cpus: Collection[int]
    quota_cpus: float | None
    memory_bytes: int | None
    ranks: int
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPlan:
    """What one rank's server gets."""

    cpus: tuple[int, ...]
    buffer_pool_mib: int


def plan_local(machine: Machine, *, rank: int, cpus: int | None, clip_bytes: int) -> LocalPlan:
    """The part of rank `rank` of the node: its CPUs but one, which is the trainer's; at least one, shared with it if
    there is no other. `cpus` is how many are wanted, None for all that are spare.

    A container's quota lowers the number, and memory that is short. Raises BadInput for more than the rank may use.
    """
    ordered, parts = sorted(machine.cpus), 1 if machine.pinned else machine.ranks
    at = 0 if machine.pinned else rank
    own = ordered[len(ordered) * at // parts : len(ordered) * (at + 1) // parts] or [ordered[at % len(ordered)]]
    if cpus is not None and not 1 <= cpus <= len(own):
        raise BadInput(
            f"is {cpus}, wanted 1 to {len(own)}: rank {rank} of {machine.ranks} of this node has "
            f"so many of the {len(ordered)} CPUs that it may run on",
            of="loader",
            field="local_cpus",
        )
    time_cpus = math.inf if machine.quota_cpus is None else machine.quota_cpus / machine.ranks
    memory_bytes = math.inf if machine.memory_bytes is None else machine.memory_bytes / machine.ranks
    spare = min(len(own), time_cpus) - 1
    count = cpus or max(int(min(spare, memory_bytes / 2 / _CPU_BYTES)), 1)
    pool_mib = max(min(_POOL_MIB, memory_bytes / _POOL_PART / _MIB), _POOL_LEAST_MIB, clip_bytes * _POOL_CLIPS / _MIB)
    return LocalPlan(cpus=tuple(own[-count:]), buffer_pool_mib=math.ceil(pool_mib))
