"""How a box is divided into domains, each of which one front serves: CPUs, worker slots, a part of the buffer pool.

Pure over a sysfs tree and worker slots given as arguments; it pins and starts nothing. A domain lies within a NUMA node
and, where that is no smaller than a front needs, within an L3 cache; the threads of one core are never divided.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from decode_server.service.workers.topology import WorkerSlot
from framefeed.errors import BadInput

FRONT_THREADS = 16
MAX_FRONTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A CPU and what it shares: its socket and NUMA node by number, its L3 cache and core as the kernel lists them."""

    id: int
    socket: int
    node: int
    cache: str
    core: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What one front has. `threads` are those that decode at a time, `node` is None where it spans several."""

    cpus: tuple[int, ...]
    worker_slots: tuple[WorkerSlot, ...]
    threads: int
    buffer_pool_mib: int
    node: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainLimits:
    """Threads of each worker, decode threads that one front is for, the number of fronts (None: as these say), and the
    buffer pools of all in MiB.
    """

    threads: int
    front_threads: int = FRONT_THREADS
    fronts: int | None = None
    buffer_pool_mib: int


_Part = tuple[Cpu, ...]


def read_cpus(sysfs_cpus: Path, worker_slots: Sequence[WorkerSlot]) -> tuple[Cpu, ...]:
    """The CPUs of the slots, neighbours beside each other. What the kernel does not tell is shared by all."""
    sockets = {cpu: slot.socket for slot in worker_slots for cpu in slot.cpus}
    cpus = [_read_cpu(sysfs_cpus / f"cpu{cpu}", cpu, socket) for cpu, socket in sockets.items()]
    first = {cpu.core: min(c.id for c in cpus if c.core == cpu.core) for cpu in cpus}
    return tuple(sorted(cpus, key=lambda c: (c.node, c.socket, _lowest(c.cache), first[c.core], c.id)))


def plan_domains(cpus: Sequence[Cpu], worker_slots: Sequence[WorkerSlot], limits: DomainLimits) -> tuple[Domain, ...]:
    """The domains of these CPUs, which are as read_cpus gives them, and of the workers that the slots are for.

    By default one for each NUMA node, L3 cache or `front_threads` decode threads, whichever is smallest; caches for
    fewer than half as many threads are served together, and so is a box that has no more. Raises BadInput for a number
    of fronts for which there are not enough CPUs or workers.
    """
    workers_of = Counter(slot.socket for slot in worker_slots)
    threads = len(worker_slots) * limits.threads
    wanted = limits.fronts
    if wanted == 1 or (wanted is None and threads <= limits.front_threads // 2):
        return (_whole(cpus, worker_slots, limits),)
    cpus_of = Counter(cpu.socket for cpu in cpus)
    weigh = _weigher({s: workers_of[s] * limits.threads / n for s, n in cpus_of.items()})
    if wanted is None:
        parts = _parts_by_cache(cpus, weigh, limits)
    else:
        parts = _parts_by_number(cpus, weigh, wanted)
    slots = _divide_workers(parts, workers_of)
    if wanted is None:
        parts, slots = _join_idle(parts, slots, workers_of)
    elif not all(slots):
        raise BadInput(f"--fronts is {wanted}, and there are {len(worker_slots)} workers to divide among so many")
    if len(parts) == 1:
        return (_whole(cpus, worker_slots, limits),)
    if len(parts) > MAX_FRONTS:
        raise BadInput(f"--front-threads {limits.front_threads} makes {len(parts)} fronts, wanted at most {MAX_FRONTS}")
    mib = apportion(limits.buffer_pool_mib, [len(some) for some in slots])
    return tuple(
        Domain(
            cpus=tuple(sorted(cpu.id for cpu in part)),
            worker_slots=tuple(some),
            threads=len(some) * limits.threads,
            buffer_pool_mib=max(part_mib, 1),
            node=_node_of(part),
        )
        for part, some, part_mib in zip(parts, slots, mib, strict=True)
    )


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole shares of `total` by the weights, by largest remainder; none has nothing while another has two."""
    whole = math.fsum(weights)
    exact = [total * weight / whole for weight in weights]
    shares = [math.floor(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_rest[: total - sum(shares)]:
        shares[i] += 1
    for i, share in enumerate(shares):
        most = max(range(len(shares)), key=shares.__getitem__)
        if not share and shares[most] > 1:
            shares[i], shares[most] = 1, shares[most] - 1
    return shares


def _read_cpu(folder: Path, cpu: int, socket: int) -> Cpu:
    nodes = [int(node.name[4:]) for node in folder.glob("node[0-9]*") if node.name[4:].isdecimal()]
    cache = _text(folder / "cache" / "index3" / "shared_cpu_list")
    core = _text(folder / "topology" / "core_cpus_list") or _text(folder / "topology" / "thread_siblings_list")
    return Cpu(id=cpu, socket=socket, node=min(nodes, default=0), cache=cache, core=core or str(cpu))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _lowest(cpu_list: str) -> tuple[int, str]:
    """Orders the kernel's lists of CPUs ("0-7,96-103") by their first."""
    first = cpu_list.replace("-", ",").partition(",")[0]
    return (int(first) if first.isdecimal() else -1), cpu_list


def _weigher(thread_share: dict[int, float]) -> Callable[[Iterable[Cpu]], float]:
    """Gives the decode threads that run on CPUs, by the share that each CPU of a socket has."""
    return lambda cpus: math.fsum(thread_share[cpu.socket] for cpu in cpus)


def _parts_by_cache(cpus: Sequence[Cpu], weigh: Callable[[Iterable[Cpu]], float], limits: DomainLimits) -> list[_Part]:
    parts: list[_Part] = []
    most, few = max(limits.front_threads, limits.threads), max(limits.front_threads / 2, limits.threads)
    for node in _grouped(cpus, lambda cpu: cpu.node):
        gathered: list[_Part] = []
        for cell in _grouped(node, lambda cpu: (cpu.socket, cpu.cache)):
            last = gathered[-1] if gathered else ()
            if last and min(weigh(last), weigh(cell)) < few and weigh(last + cell) <= most:
                gathered[-1] = last + cell
            else:
                gathered.append(cell)
        for part in gathered:
            cores = _grouped(part, lambda cpu: cpu.core)
            parts += _cut(cores, min(math.ceil(weigh(part) / most - 1e-9), len(cores)))
    return parts


def _parts_by_number(cpus: Sequence[Cpu], weigh: Callable[[Iterable[Cpu]], float], fronts: int) -> list[_Part]:
    if not fronts <= min(len(cpus), MAX_FRONTS):
        raise BadInput(f"--fronts is {fronts}, and there are {len(cpus)} CPUs to divide, for {MAX_FRONTS} at most")
    nodes = _grouped(cpus, lambda cpu: cpu.node)
    shares = apportion(fronts, [weigh(node) for node in nodes])
    if not all(0 < share <= len(node) for share, node in zip(shares, nodes, strict=True)):
        nodes, shares = [tuple(cpus)], [fronts]
    parts: list[_Part] = []
    for node, share in zip(nodes, shares, strict=True):
        cores = _grouped(node, lambda cpu: cpu.core)
        parts += _cut(cores if len(cores) >= share else [(cpu,) for cpu in node], share)
    return parts


def _grouped(cpus: Iterable[Cpu], key: Callable[[Cpu], Hashable]) -> list[_Part]:
    """The CPUs of each key, in the order in which the keys come first."""
    groups: dict[Hashable, list[Cpu]] = {}
    for cpu in cpus:
        groups.setdefault(key(cpu), []).append(cpu)
    return [tuple(group) for group in groups.values()]


def _cut(units: Sequence[_Part], pieces: int) -> list[_Part]:
    """So many runs of units, none of which is a unit longer than another."""
    ends = [len(units) * i // pieces for i in range(pieces + 1)]
    return [tuple(cpu for unit in units[begin:end] for cpu in unit) for begin, end in pairwise(ends)]


def _divide_workers(parts: Sequence[_Part], workers_of: Counter[int]) -> list[list[WorkerSlot]]:
    """The slots of each part: each socket's workers by the CPUs that its parts have of it."""
    slots: list[list[WorkerSlot]] = [[] for _ in parts]
    for socket, workers in sorted(workers_of.items()):
        theirs = [(i, tuple(sorted(c.id for c in part if c.socket == socket))) for i, part in enumerate(parts)]
        theirs = [(i, cpus) for i, cpus in theirs if cpus]
        for (i, cpus), count in zip(theirs, apportion(workers, [len(cpus) for _, cpus in theirs]), strict=True):
            slots[i] += [WorkerSlot(socket=socket, cpus=cpus)] * count
    return slots


def _join_idle(
    parts: list[_Part], slots: list[list[WorkerSlot]], workers_of: Counter[int]
) -> tuple[list[_Part], list[list[WorkerSlot]]]:
    """Parts for which there is no worker are a neighbour's, of the same node where there is one."""
    while not all(slots):
        idle = next(i for i, some in enumerate(slots) if not some)
        beside = [i for i in (idle - 1, idle + 1) if 0 <= i < len(parts)]
        other = min(beside, key=lambda i: _node_of(parts[i]) != _node_of(parts[idle]))
        low, high = sorted((idle, other))
        parts = [*parts[:low], parts[low] + parts[high], *parts[high + 1 :]]
        slots = _divide_workers(parts, workers_of)
    return parts, slots


def _whole(cpus: Sequence[Cpu], worker_slots: Sequence[WorkerSlot], limits: DomainLimits) -> Domain:
    return Domain(
        cpus=tuple(sorted(cpu.id for cpu in cpus)),
        worker_slots=tuple(worker_slots),
        threads=len(worker_slots) * limits.threads,
        buffer_pool_mib=limits.buffer_pool_mib,
        node=_node_of(cpus),
    )


def _node_of(cpus: Iterable[Cpu]) -> int | None:
    nodes = {cpu.node for cpu in cpus}
    return nodes.pop() if len(nodes) == 1 else None
