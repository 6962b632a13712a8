"""Sockets, quotas and worker slots from made-up sysfs and cgroup trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from decode_server.service.workers.topology import (
    Socket,
    WorkerSlot,
    choose_sockets,
    plan_worker_slots,
    read_sockets,
)
from framefeed.errors import BadInput

TWO = (Socket(id=0, cpus=(0, 1, 4, 5)), Socket(id=1, cpus=(2, 3, 6, 7)))


def make_sysfs(root: Path, package_of: dict[int, str]) -> Path:
    for cpu, package in package_of.items():
        folder = root / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(package)
    return root


def test_cpus_are_grouped_by_the_package_they_sit_in(tmp_path: Path) -> None:
    sysfs = make_sysfs(tmp_path, {cpu: f"{cpu // 2 % 2}\n" for cpu in range(8)})
    assert read_sockets(sysfs, frozenset(range(8))) == TWO


def test_only_allowed_cpus_count(tmp_path: Path) -> None:
    sysfs = make_sysfs(tmp_path, {cpu: f"{cpu // 4}\n" for cpu in range(8)})
    assert read_sockets(sysfs, frozenset({6, 5})) == (Socket(id=1, cpus=(5, 6)),)


def test_a_kernel_that_does_not_tell_means_one_socket(tmp_path: Path) -> None:
    sysfs = make_sysfs(tmp_path, {0: "-1\n", 1: "nonsense"})
    assert read_sockets(sysfs, frozenset({0, 1, 2})) == (Socket(id=0, cpus=(0, 1, 2)),)


def test_choosing_sockets() -> None:
    assert choose_sockets(TWO, "") == TWO
    assert choose_sockets(TWO, " 1 ") == (TWO[1],)
    assert choose_sockets(TWO, "1,0,1") == (TWO[1], TWO[0])
    for wrong in ("2", "-1", "0,", "zero"):
        with pytest.raises(BadInput, match="it may use 0, 1"):
            choose_sockets(TWO, wrong)


def test_a_worker_for_each_so_many_threads_of_cpus() -> None:
    slots = plan_worker_slots(TWO, workers=None, threads=2, quota_cpus=None)
    assert slots == (WorkerSlot(socket=0, cpus=(0, 1, 4, 5)),) * 2 + (WorkerSlot(socket=1, cpus=(2, 3, 6, 7)),) * 2


def test_every_socket_has_a_worker_and_a_given_number_is_kept() -> None:
    slots = plan_worker_slots(TWO, workers=None, threads=16, quota_cpus=None)
    assert [slot.socket for slot in slots] == [0, 1]
    slots = plan_worker_slots(TWO, workers=3, threads=16, quota_cpus=1.0)
    assert [slot.socket for slot in slots] == [0] * 3 + [1] * 3


def test_a_quota_lowers_the_default() -> None:
    assert len(plan_worker_slots(TWO, workers=None, threads=1, quota_cpus=4.0)) == 4
    assert len(plan_worker_slots(TWO, workers=None, threads=1, quota_cpus=100.0)) == 8
