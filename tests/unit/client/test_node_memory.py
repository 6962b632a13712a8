"""How much memory a node has, from made-up /proc and cgroup trees, and how many ranks torchrun says share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefeed.errors import BadInput
from trainer_client.node_memory import local_ranks, node_memory_bytes

GIB = 1 << 30


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 67108864 kB\nMemFree: 1 kB\nMemAvailable: 33554432 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/job/rank0\n")
    (tmp_path / "cgroup/job/rank0").mkdir(parents=True)
    return tmp_path


def memory(node: Path) -> int | None:
    return node_memory_bytes(node / "proc", node / "cgroup")


def test_without_limits_it_is_what_the_host_has_available(node: Path) -> None:
    assert memory(node) == 32 * GIB
    (node / "cgroup/job/memory.max").write_text("max\n")
    assert memory(node) == 32 * GIB


@pytest.mark.parametrize("where", ["job/rank0", "job", ""])
def test_a_limit_of_any_group_above_holds(node: Path, where: str) -> None:
    (node / "cgroup" / where / "memory.max").write_text(f"{8 * GIB}\n")
    assert memory(node) == 8 * GIB
    (node / "cgroup" / where / "memory.max").write_text(f"{80 * GIB}\n")
    assert memory(node) == 32 * GIB, "there is not so much"


def test_a_container_that_sees_its_own_group_as_the_root_and_cgroup_v1(node: Path) -> None:
    (node / "proc/self/cgroup").write_text("12:memory:/kubepods/pod1\n3:cpu,cpuacct:/\n")
    (node / "cgroup/memory").mkdir()
    (node / "cgroup/memory/memory.limit_in_bytes").write_text(f"{4 * GIB}\n")
    assert memory(node) == 4 * GIB


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    assert memory(tmp_path) is None


def test_this_machine_has_some() -> None:
    bytes_here = node_memory_bytes()
    assert bytes_here is not None
    assert bytes_here > 1 << 27


def test_local_ranks_are_what_torchrun_says() -> None:
    assert (local_ranks({}), local_ranks({"LOCAL_WORLD_SIZE": "8"})) == (1, 8)
    for text in ("0", "-1", "eight", ""):
        with pytest.raises(BadInput, match="LOCAL_WORLD_SIZE is"):
            local_ranks({"LOCAL_WORLD_SIZE": text})
