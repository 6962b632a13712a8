"""CPUs of recorded boxes: whole nodes and cores are well, parts of several are named with what to have instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from decode_server.service.cpu_findings import check_cpus
from decode_server.service.host_probe import check_codecs, probe
from decode_server.service.workers.domains import Cpu, read_cpus
from decode_server.service.workers.topology import WorkerSlot, read_sockets
from framefeed.cli.doctor.finding import Asked, Finding, Level, worst
from tests.unit.server.recorded_topologies import BOXES


def findings(box: str, cpus: set[int] | None, *, tmp_path: Path, quota_cpus: float | None = None) -> list[Finding]:
    """Of a box read from the tree that its kernel shows."""
    whole = replace(BOXES[box], allowed=None)
    tree = whole.write(tmp_path)

    def read(numbers: frozenset[int]) -> Sequence[Cpu]:
        sockets = read_sockets(tree, numbers)
        return read_cpus(tree, [WorkerSlot(socket=socket.id, cpus=socket.cpus) for socket in sockets])

    return check_cpus(read(frozenset(cpus or whole.cpus)), read(whole.cpus), quota_cpus=quota_cpus)


@pytest.mark.parametrize("box", BOXES)
def test_a_whole_box_has_nothing_to_change(box: str, tmp_path: Path) -> None:
    found = findings(box, None, tmp_path=tmp_path)
    assert worst(found) is Level.OK
    assert f"{len(replace(BOXES[box], allowed=None).cpus)} of " in found[0].seen


def test_a_whole_node_and_a_part_of_one_node_are_well(tmp_path: Path) -> None:
    node = {*range(48), *range(96, 144)}
    assert worst(findings("2x48 Xeon, SMT", node, tmp_path=tmp_path / "a")) is Level.OK
    assert worst(findings("2x48 Xeon, SMT", {0, 1, 96, 97}, tmp_path=tmp_path / "b")) is Level.OK
    assert worst(findings("2x48 Xeon, SNC4", node, tmp_path=tmp_path / "c")) is Level.OK, "four whole nodes"


def test_parts_of_two_nodes_are_named_with_a_cpuset_of_each(tmp_path: Path) -> None:
    found = findings("2x48 Xeon, SMT", {3, 4, 60, 61, 99, 100, 156, 157}, tmp_path=tmp_path)
    (finding,) = [finding for finding in found if finding.level is Level.WARN]
    assert "in 2 NUMA nodes" in finding.seen
    assert "node 0: 0-47,96-143; node 1: 48-95,144-191" in finding.change


def test_a_divided_core_is_named(tmp_path: Path) -> None:
    found = findings("desktop, 8 cores SMT", {0, 1, 8}, tmp_path=tmp_path)
    (finding,) = [finding for finding in found if finding.level is Level.WARN]
    assert finding.seen == "1 core shared with whoever has its other thread, such as 1,9"


@pytest.mark.parametrize(
    ("quota_cpus", "level"), [(None, Level.OK), (0.5, Level.BAD), (1.5, Level.WARN), (2.0, Level.OK)]
)
def test_a_quota_counts(quota_cpus: float | None, level: Level, tmp_path: Path) -> None:
    assert worst(findings("two cores", None, tmp_path=tmp_path, quota_cpus=quota_cpus)) is level


def test_codecs_that_are_missing_are_named() -> None:
    found = check_codecs({"h264", "hevc", "vp9", "mpeg4", "mjpeg"}, [], fingerprint="engine1")
    assert [finding.level for finding in found] == [Level.OK, Level.WARN, Level.WARN]
    assert "libdav1d" in found[1].seen


def test_this_machine_s_build_has_all_codecs() -> None:
    said = {finding.what: finding for finding in probe(Asked(credentials={}))}
    assert {"CPUs", "CPU quota", "decoder"} <= set(said)
    assert "FFmpeg" not in said
