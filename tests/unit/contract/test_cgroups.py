"""CPU time that a container leaves its processes, from trees of files as both versions of control groups have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefeed.cgroups import own_groups, read_cpu_quota


def machine(folder: Path, groups: str, **files: str) -> tuple[Path, Path]:
    """A /sys/fs/cgroup with these files (a__b is a/b) and a /proc whose process is in these groups."""
    mount, proc = folder / "cgroup", folder / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(groups)
    for name, text in files.items():
        path = mount / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return mount, proc


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000\n", None), ("250000 100000\n", 2.5), ("odd", None), ("1 0", None), ("", None)]
)
def test_the_quota_of_a_container_is_at_the_root_of_what_it_sees(tmp_path: Path, text: str, cpus: float | None) -> None:
    assert read_cpu_quota(*machine(tmp_path, "0::/\n", cpu_max=text)) == cpus


def test_the_least_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    quotas = {"a__cpu_max": "400000 100000\n", "a__b__cpu_max": "max 100000\n", "other__cpu_max": "1 100000\n"}
    assert read_cpu_quota(*machine(tmp_path, "0::/a/b\n", **quotas)) == 4.0


@pytest.mark.parametrize("tree", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("at", ["", "__docker__c1"])
def test_version_one_has_a_tree_for_each_controller(tmp_path: Path, tree: str, at: str) -> None:
    files = {f"{tree}{at}__cfs_quota_us": "150000\n", f"{tree}{at}__cfs_period_us": "100000\n"}
    assert read_cpu_quota(*machine(tmp_path, "4:cpu,cpuacct:/docker/c1\n", **files)) == 1.5


def test_version_one_without_a_limit(tmp_path: Path) -> None:
    files = {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}
    assert read_cpu_quota(*machine(tmp_path, "4:cpu:/\n", **files)) is None


def test_no_cgroup_files_mean_no_quota(tmp_path: Path) -> None:
    assert read_cpu_quota(tmp_path, tmp_path) is None
    assert own_groups(tmp_path, tmp_path) == [tmp_path]
