"""Domains of recorded boxes: what a front has lies together, nothing is lost or shared, and its CPU is enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from decode_server.service.workers.domains import Cpu, Domain, DomainLimits, apportion, plan_domains, read_cpus
from decode_server.service.workers.topology import WorkerSlot, plan_worker_slots, read_sockets
from framefeed.errors import BadInput
from tests.unit.server.recorded_topologies import BOXES, Box

THREAD_CLIPS_PER_S = 19_000 / 192  # two 48-core sockets with SMT decode so many of 4x224x224
FRONT_CPU_S = 0.33e-3  # a clip, over tcp


def plan(
    box: Box, *, workers: int | None = None, threads: int = 2, fronts: int | None = None, mib: int = 256,
    quota: float | None = None,
) -> tuple[tuple[Cpu, ...], tuple[WorkerSlot, ...], tuple[Domain, ...]]:  # fmt: skip
    slots = plan_worker_slots(box.sockets(), workers=workers, threads=threads, quota_cpus=quota)
    limits = DomainLimits(threads=threads, fronts=fronts, buffer_pool_mib=mib)
    return box.describe(), slots, plan_domains(box.describe(), slots, limits)


@pytest.mark.parametrize(
    "name", ["desktop, 8 cores SMT", "2x64 EPYC, NPS4, L3 of 4 cores", "virtual, a socket a core, no caches told"]
)
def test_a_box_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    box = BOXES[name]
    sysfs = box.write(tmp_path)
    assert read_sockets(sysfs, box.cpus) == box.sockets()
    slots = plan_worker_slots(box.sockets(), workers=None, threads=2, quota_cpus=None)
    assert read_cpus(sysfs, slots) == box.describe()


@pytest.mark.parametrize(
    ("name", "threads"),
    [
        ("two cores", [2]),
        ("desktop, 8 cores SMT", [16]),
        ("64 Arm cores, one L3", [16] * 4),
        ("2x48 Xeon, SMT", [16] * 12),
        ("2x48 Xeon, SNC4", [12] * 16),
        ("2x96 EPYC, L3 of 8 cores, SMT", [16] * 24),
        ("2x64 EPYC, NPS4, L3 of 4 cores", [16] * 8),
        ("4x28 Xeon, SMT", [14] * 16),
        ("virtual, a socket a core, no caches told", [16] * 4),  # each socket has a worker at least
        ("2x48 Xeon, cpuset cuts a socket", [16] * 5 + [6]),
        ("2x48 Xeon, cpuset of 4 CPUs of both", [4]),
    ],
)
def test_fronts_of_recorded_boxes(name: str, threads: list[int]) -> None:
    _, _, domains = plan(BOXES[name])
    assert [domain.threads for domain in domains] == threads


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("threads", [1, 2, 4, 16])
def test_nothing_is_lost_or_shared_and_a_front_keeps_up_with_its_workers(
    name: str, threads: int, tmp_path: Path
) -> None:
    cpus, slots, domains = plan(BOXES[name], threads=threads, mib=1000)
    by_id = {cpu.id: cpu for cpu in cpus}
    assert sorted(cpu for domain in domains for cpu in domain.cpus) == sorted(by_id)
    assert sum(len(domain.worker_slots) for domain in domains) == len(slots)
    assert sum(domain.buffer_pool_mib for domain in domains) == 1000
    for domain in domains:
        assert domain.worker_slots
        assert domain.threads == len(domain.worker_slots) * threads
        decoded = domain.threads * THREAD_CLIPS_PER_S
        assert 1.3 * decoded <= 1 / FRONT_CPU_S
        for slot in domain.worker_slots:
            assert set(slot.cpus) <= set(domain.cpus)
            assert {by_id[cpu].socket for cpu in slot.cpus} == {slot.socket}
    if len(domains) > 1:
        for domain in domains:
            assert {by_id[cpu].node for cpu in domain.cpus} == {domain.node}
            cores = {by_id[cpu].core for cpu in domain.cpus}
            assert {cpu.id for cpu in cpus if cpu.core in cores} == set(domain.cpus)  # no core is divided


def test_caches_are_not_divided_where_they_are_as_large_as_a_front_wants() -> None:
    cpus, _, domains = plan(BOXES["2x96 EPYC, L3 of 8 cores, SMT"])
    by_id = {cpu.id: cpu for cpu in cpus}
    assert {len({by_id[cpu].cache for cpu in domain.cpus}) for domain in domains} == {1}


def test_a_part_of_the_buffer_pool_is_by_the_threads_and_never_nothing() -> None:
    _, _, domains = plan(BOXES["2x48 Xeon, cpuset cuts a socket"], mib=860)
    assert [domain.buffer_pool_mib for domain in domains] == [160] * 5 + [60]
    _, _, domains = plan(BOXES["2x48 Xeon, SMT"], mib=4)
    assert {domain.buffer_pool_mib for domain in domains} == {1}


def test_one_front_is_what_it_was_before_there_were_several() -> None:
    _, slots, domains = plan(BOXES["2x48 Xeon, SMT"], fronts=1)
    assert len(domains) == 1
    assert domains[0].worker_slots == slots
    assert domains[0].buffer_pool_mib == 256
    assert domains[0].node is None


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("fronts", [2, 3])
def test_a_number_of_fronts_is_kept(name: str, fronts: int) -> None:
    box = BOXES[name]
    workers = fronts if len(box.cpus) < 8 else None
    if fronts > len(box.cpus):
        with pytest.raises(BadInput, match="there are 2 CPUs to divide"):
            plan(box, fronts=fronts, workers=workers)
        return
    cpus, slots, domains = plan(box, fronts=fronts, workers=workers)
    assert len(domains) == fronts
    assert sorted(cpu for domain in domains for cpu in domain.cpus) == sorted(cpu.id for cpu in cpus)
    assert sum(len(domain.worker_slots) for domain in domains) == len(slots)


def test_too_few_workers_for_the_fronts_is_said() -> None:
    with pytest.raises(BadInput, match="--fronts is 2, and there are 1 workers"):
        plan(BOXES["two cores"], fronts=2)


def test_few_threads_on_many_cpus_are_one_front() -> None:
    _, slots, domains = plan(BOXES["2x48 Xeon, SMT"], quota=8.0)
    assert [domain.worker_slots for domain in domains] == [slots]
    _, slots, domains = plan(BOXES["2x48 Xeon, SMT"], workers=2)
    assert [domain.worker_slots for domain in domains] == [slots]


def test_where_the_kernel_tells_nothing_all_cpus_are_alike(tmp_path: Path) -> None:
    slots = (WorkerSlot(socket=0, cpus=tuple(range(32))),) * 16
    domains = plan_domains(read_cpus(tmp_path, slots), slots, DomainLimits(threads=2, buffer_pool_mib=64))
    assert [domain.cpus for domain in domains] == [tuple(range(16)), tuple(range(16, 32))]


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [(10, [1, 1], [5, 5]), (3, [1, 1], [2, 1]), (2, [100, 1], [1, 1]), (1, [1, 5, 1], [0, 1, 0])],
)  # fmt: skip
def test_apportioning(total: int, weights: list[float], shares: list[int]) -> None:
    assert apportion(total, weights) == shares
