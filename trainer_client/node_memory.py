"""How much memory this node has for a loader and how many ranks share it; reads /proc, cgroups and the environment.

It divides nothing: that is memory_budgets'.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from framefeed.errors import BadInput

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_LOCAL_RANKS = "LOCAL_WORLD_SIZE"  # set by torchrun in every rank
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes", "memory.limit_in_bytes")  # cgroup v2, v1 by its two mounts


def local_ranks(environment: Mapping[str, str] = os.environ) -> int:
    """Ranks on this node as torchrun tells (LOCAL_WORLD_SIZE); 1 without it. Raises BadInput if that is no count."""
    text = environment.get(_LOCAL_RANKS, "1")
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"environment: {_LOCAL_RANKS} is {text!r}, wanted the number of ranks on this node")
    return int(text)


def node_memory_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """The memory that can be had here: what the host has available, at most the limit of this process's cgroups.

    None where neither can be read. It does not block.
    """
    found = [*_available(proc / "meminfo"), *_cgroup_limits(proc / "self/cgroup", cgroup)]
    return min(found, default=None)


def _available(meminfo: Path) -> Iterator[int]:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10


def _cgroup_limits(ours: Path, mount: Path) -> Iterator[int]:
    """Those of the group we are in and of all above it."""
    groups = {mount}
    for line in _lines(ours):  # number:controllers:/path
        group = mount / line.split(":", 2)[-1].strip("/")
        groups |= {group, *(above for above in group.parents if above.is_relative_to(mount))}
    for group in groups:
        for name in _LIMITS:
            yield from (int(text) for text in _lines(group / name) if text.isdecimal())  # not "max"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
