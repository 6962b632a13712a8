"""How much memory this node has for a loader and how many ranks share it; reads /proc, cgroups and the environment.

It divides nothing: that is memory_budgets'.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from framefeed.cgroups import lines_of, own_groups
from framefeed.errors import BadInput
from framefeed.show_value import show_value

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_LOCAL_RANKS = "LOCAL_WORLD_SIZE"  # set by torchrun in every rank
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes", "memory.limit_in_bytes")  # cgroup v2, v1 by its two mounts


def local_ranks(environment: Mapping[str, str] = os.environ) -> int:
    """Ranks on this node as torchrun tells (LOCAL_WORLD_SIZE); 1 without it. Raises BadInput if that is no count."""
    text = environment.get(_LOCAL_RANKS, "1")
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"environment: {_LOCAL_RANKS} is {show_value(text)}, wanted the number of ranks on this node")
    return int(text)


def node_memory_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """The memory that can be had here: what the host has available, at most the limit of this process's cgroups.

    None where neither can be read. It does not block.
    """
    found = [*_available(proc / "meminfo"), *_cgroup_limits(proc, cgroup)]
    return min(found, default=None)


def _available(meminfo: Path) -> Iterator[int]:
    for line in lines_of(meminfo):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10


def _cgroup_limits(proc: Path, mount: Path) -> Iterator[int]:
    """Those of the group we are in and of all above it."""
    for group in own_groups(mount, proc):
        for name in _LIMITS:
            yield from (int(text) for text in lines_of(group / name) if text.isdecimal())  # not "max"
