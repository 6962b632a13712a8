"""What the CPUs that a decode server may use mean for it: parts of nodes and cores, and quotas. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from decode_server.service.workers.domains import Cpu
from framefeed.cli.doctor.finding import Finding, bad, good, warn

_LISTED = 6


def check_cpus(allowed: Sequence[Cpu], machine: Sequence[Cpu], *, quota_cpus: float | None) -> list[Finding]:
    """Findings of the CPUs that this process may use, of all that the machine has, and of what its quota leaves."""
    found = [*_parts_of_nodes(allowed, machine), *_parts_of_cores(allowed, machine), *_quota(len(allowed), quota_cpus)]
    sockets, nodes = ({getattr(cpu, kind) for cpu in allowed} for kind in ("socket", "node"))
    where = f"of {_counted(len(sockets), 'socket')}, {_counted(len(nodes), 'NUMA node')}"
    seen = f"{len(allowed)} of {len(machine)}, {where}"
    return [good("CPUs", f"{seen}: {_ranges(cpu.id for cpu in allowed)}"), *found]


def _parts_of_nodes(allowed: Sequence[Cpu], machine: Sequence[Cpu]) -> Iterator[Finding]:
    """A cpuset of a part of a node is well, and one of several nodes' parts is not."""
    nodes = sorted({cpu.node for cpu in allowed})
    mine = {cpu.id for cpu in allowed}
    parts = [node for node in nodes if not {cpu.id for cpu in machine if cpu.node == node} <= mine]
    if len(nodes) < 2 or not parts:
        return
    whole = [f"node {node}: {_ranges(cpu.id for cpu in machine if cpu.node == node)}" for node in nodes]
    seen = f"in {len(nodes)} NUMA nodes, and not all of node {', '.join(map(str, parts))}"
    change = f"cpuset (or taskset) of one node, and a server for each: {'; '.join(whole[:_LISTED])}"
    yield warn("cpuset", seen, change)


def _parts_of_cores(allowed: Sequence[Cpu], machine: Sequence[Cpu]) -> Iterator[Finding]:
    mine = {cpu.id for cpu in allowed}
    cores = {cpu.core for cpu in allowed}
    divided = {cpu.core for cpu in machine if cpu.core in cores and cpu.id not in mine}
    if not divided:
        return
    core = min(divided, key=lambda core: min(cpu.id for cpu in machine if cpu.core == core))
    threads = _ranges(cpu.id for cpu in machine if cpu.core == core)
    seen = f"{_counted(len(divided), 'core')} shared with whoever has its other thread, such as {threads}"
    yield warn("cpuset", seen, "both threads of a core, or neither: what runs on the other one slows every decode")


def _quota(cpus: int, quota_cpus: float | None) -> Iterator[Finding]:
    what = "CPU quota"
    if quota_cpus is None:
        yield good(what, "none")
    elif quota_cpus < 1:
        yield bad(what, f"{quota_cpus:g} CPUs", "at least 1: cpus of the container, or cpu.max of its group")
    elif quota_cpus < cpus:
        change = "a cpuset instead: under a quota all threads stop for a part of each 100 ms, and requests run late"
        yield warn(what, f"{quota_cpus:g} of {cpus} CPUs", change)
    else:
        yield good(what, f"{quota_cpus:g} CPUs, for {cpus}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _ranges(cpus: Iterator[int]) -> str:
    """As the kernel lists CPUs: "0-7,96-103"."""
    numbers = sorted(set(cpus))
    starts = [cpu for cpu in numbers if cpu - 1 not in numbers]
    ends = [cpu for cpu in numbers if cpu + 1 not in numbers]
    return ",".join(f"{a}-{b}" if a != b else f"{a}" for a, b in zip(starts, ends, strict=True))
