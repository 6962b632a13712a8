"""Boxes as the kernel describes them in sysfs: what shares a socket, a NUMA node, an L3 cache and a core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from decode_server.service.workers.domains import Cpu
from decode_server.service.workers.topology import Socket


@dataclass(frozen=True, kw_only=True)
class Box:
    """`cores` physical cores; core c has CPU c and, of `smt` 2, CPU c + cores. What a core lies in follows from it."""

    cores: int
    smt: int = 1
    socket: Callable[[int], int] = lambda _: 0
    node: Callable[[int], int] = lambda _: 0
    cache: Callable[[int], int] | None = lambda _: 0
    allowed: frozenset[int] | None = None  # by a cpuset

    @property
    def cpus(self) -> frozenset[int]:
        """Those that may be used."""
        return self.allowed or frozenset(range(self.cores * self.smt))

    def describe(self) -> tuple[Cpu, ...]:
        """The CPUs that may be used, as read_cpus gives them."""
        caches = {} if self.cache is None else self._lists(self.cache)
        cores = self._lists(lambda core: core)
        by_core = sorted(self.cpus, key=lambda cpu: (self.node(cpu % self.cores), cpu % self.cores, cpu))
        return tuple(
            Cpu(
                id=cpu,
                socket=self.socket(cpu % self.cores),
                node=self.node(cpu % self.cores),
                cache="" if self.cache is None else caches[self.cache(cpu % self.cores)],
                core=cores[cpu % self.cores],
            )
            for cpu in by_core
        )

    def sockets(self) -> tuple[Socket, ...]:
        """As read_sockets gives them."""
        cpus_of: dict[int, list[int]] = {}
        for cpu in sorted(self.cpus):
            cpus_of.setdefault(self.socket(cpu % self.cores), []).append(cpu)
        return tuple(Socket(id=socket, cpus=tuple(cpus)) for socket, cpus in sorted(cpus_of.items()))

    def write(self, root: Path) -> Path:
        """The tree, CPUs that may not be used included, as the kernel has them too."""
        lists = {} if self.cache is None else self._lists(self.cache)
        cores = self._lists(lambda core: core)
        for cpu in range(self.cores * self.smt):
            core = cpu % self.cores
            self._put(root / f"cpu{cpu}" / "topology" / "physical_package_id", f"{self.socket(core)}")
            self._put(root / f"cpu{cpu}" / "topology" / "core_cpus_list", cores[core])
            (root / f"cpu{cpu}" / f"node{self.node(core)}").mkdir()
            if self.cache is not None:
                self._put(root / f"cpu{cpu}" / "cache" / "index3" / "shared_cpu_list", lists[self.cache(core)])
        return root

    def _lists(self, place: Callable[[int], int]) -> dict[int, str]:
        """Of each place the kernel's list of its CPUs: "0-7,96-103"."""
        cpus_of: dict[int, set[int]] = {}
        for cpu in range(self.cores * self.smt):
            cpus_of.setdefault(place(cpu % self.cores), set()).add(cpu)
        return {number: _cpu_list(cpus) for number, cpus in cpus_of.items()}

    @staticmethod
    def _put(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def _cpu_list(cpus: set[int]) -> str:
    starts = sorted(cpu for cpu in cpus if cpu - 1 not in cpus)
    ends = sorted(cpu for cpu in cpus if cpu + 1 not in cpus)
    return ",".join(f"{a}-{b}" if a != b else f"{a}" for a, b in zip(starts, ends, strict=True))


def runs(cores: int, of: int) -> Callable[[int], int]:
    """Which of runs of `of` cores a core lies in."""
    assert cores % of == 0
    return lambda core: core // of


_TWO_48 = Box(cores=96, smt=2, socket=runs(96, 48), node=runs(96, 48), cache=runs(96, 48))
BOXES = {
    "two cores": Box(cores=2),
    "desktop, 8 cores SMT": Box(cores=8, smt=2),
    "64 Arm cores, one L3": Box(cores=64),
    "2x48 Xeon, SMT": _TWO_48,
    "2x48 Xeon, SNC4": Box(cores=96, smt=2, socket=runs(96, 48), node=runs(96, 12), cache=runs(96, 48)),
    "2x96 EPYC, L3 of 8 cores, SMT": Box(
        cores=192, smt=2, socket=runs(192, 96), node=runs(192, 96), cache=runs(192, 8)
    ),
    "2x64 EPYC, NPS4, L3 of 4 cores": Box(cores=128, socket=runs(128, 64), node=runs(128, 16), cache=runs(128, 4)),
    "4x28 Xeon, SMT": Box(cores=112, smt=2, socket=runs(112, 28), node=runs(112, 28), cache=runs(112, 28)),
    "virtual, a socket a core, no caches told": Box(cores=32, socket=lambda core: core, cache=None),
    "2x48 Xeon, cpuset cuts a socket": Box(
        cores=96, smt=2, socket=runs(96, 48), node=runs(96, 48), cache=runs(96, 48),
        allowed=frozenset([*range(40), *range(96, 136), *range(90, 96)]),
    ),
    "2x48 Xeon, cpuset of 4 CPUs of both": Box(
        cores=96, smt=2, socket=runs(96, 48), node=runs(96, 48), cache=runs(96, 48), allowed=frozenset([3, 4, 60, 61]),
    ),
}  # fmt: skip
