"""What recorded facts of machines mean: limits, ports, NFS before a mount, speed, GPUs, Docker; and what is printed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from framefeed.cli.doctor.finding import Finding, Level, bad, findings_as_json, good, warn, worst
from framefeed.cli.doctor.host_checks import check_docker, check_gpu, check_host, check_nfs, check_ports, check_speed
from framefeed.cli.doctor.host_facts import DockerFacts, GpuFacts, HostFacts, NfsFacts, ReadSpeed
from framefeed.cli.doctor.mounts import WANTED

HEALTHY = HostFacts(soft_files=1024, hard_files=1 << 20, memory_bytes=64 << 30, ports=(5555, 9555))
DOCKER = DockerFacts(installed=True, engine="20.10.24+dfsg1", api="1.41", compose="5.6.1")
NFS = NfsFacts(server="nas", client=True, connect_s=0.0004, options=tuple(WANTED.split(",")))


def levels(found: list[Finding]) -> list[Level]:
    return [finding.level for finding in found]


def test_a_healthy_box_has_nothing_to_change() -> None:
    assert worst(check_host(HEALTHY)) is Level.OK


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"hard_files": 512}, Level.BAD, "LimitNOFILE"),
        ({"hard_files": 4096}, Level.WARN, "65536"),
        ({"hard_files": -1}, Level.OK, ""),
        ({"memory_bytes": 1 << 29}, Level.WARN, "1 GiB"),
        ({"taken_ports": {5555: "Address already in use"}}, Level.WARN, "--bind"),
        ({"root": "/nfs", "mount": None}, Level.WARN, "df -T"),
    ],
)
def test_each_fact_counts(change: dict[str, object], level: Level, words: str) -> None:
    found = check_host(replace(HEALTHY, **change))  # type: ignore[arg-type]
    assert worst(found) is level
    assert words in " ".join(finding.change for finding in found)


def test_of_ports_those_that_are_free_are_named_too() -> None:
    assert [finding.what for finding in check_ports((1, 2), {1: "in use"})] == ["port 1", "ports"]
    assert len(check_ports((1,), {1: "in use"})) == 1


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, [Level.OK] * 3),
        ({"client": False}, [Level.BAD, Level.OK, Level.OK]),
        ({"client": None}, [Level.WARN, Level.OK, Level.OK]),
        ({"connect_s": None, "trouble": "refused"}, [Level.OK, Level.BAD, Level.OK]),
        ({"connect_s": 0.2}, [Level.OK, Level.WARN, Level.OK]),
        ({"options": ("soft", "ro", "vers=4.2", "nconnect=8")}, [Level.OK, Level.OK, Level.BAD]),
    ],
)
def test_nfs_is_judged_before_it_is_mounted(change: dict[str, object], wanted: list[Level]) -> None:
    assert levels(check_nfs(replace(NFS, **change))) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("speed", "clips_s", "level"),
    [
        (ReadSpeed(read_bytes=160_000_000, took_s=1.0, threads=8), 0.0, Level.OK),
        (ReadSpeed(read_bytes=160_000_000, took_s=1.0, threads=8), 500.0, Level.OK),
        (ReadSpeed(read_bytes=160_000_000, took_s=1.0, threads=8), 600.0, Level.WARN),
        (ReadSpeed(read_bytes=160_000_000, took_s=1.0, threads=8), 1200.0, Level.BAD),
        (ReadSpeed(read_bytes=160_000_000, took_s=1.0, threads=8, trouble="1 of 8 reads hang"), 0.0, Level.BAD),
        (ReadSpeed(read_bytes=0, took_s=0.0, threads=8, trouble="denied"), 0.0, Level.BAD),
    ],
)
def test_reading_is_judged_by_the_need(speed: ReadSpeed, clips_s: float, level: Level) -> None:
    (finding,) = check_speed(speed, folder="/nfs", clips_s=clips_s)
    assert finding.level is level
    if speed.read_bytes:
        assert "160 MB/s" in finding.seen


def test_a_gpu_wants_a_driver_torch_and_flash_attn() -> None:
    gpu = GpuFacts(names=("NVIDIA H200",), driver="570.1", torch=True, flash_attn=True)
    assert levels(check_gpu(gpu)) == [Level.OK, Level.OK]
    assert levels(check_gpu(replace(gpu, flash_attn=False))) == [Level.OK, Level.WARN]
    assert levels(check_gpu(replace(gpu, torch=False))) == [Level.OK, Level.WARN]
    assert levels(check_gpu(GpuFacts(trouble="no driver"))) == [Level.WARN]
    assert levels(check_gpu(GpuFacts())) == [Level.OK]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, [Level.OK] * 3),
        ({"engine": "19.03.1"}, [Level.BAD, Level.OK, Level.OK]),
        ({"api": "1.40"}, [Level.OK, Level.BAD, Level.OK]),
        ({"compose": "1.29.2"}, [Level.OK, Level.OK, Level.BAD]),
        ({"compose": "v2.19.9"}, [Level.OK, Level.OK, Level.BAD]),
        ({"compose": ""}, [Level.OK, Level.OK, Level.BAD]),
        ({"engine": "", "trouble": "permission denied"}, [Level.WARN]),
        ({"installed": False}, [Level.OK]),
    ],
)
def test_docker_s_versions(change: dict[str, object], wanted: list[Level]) -> None:
    assert levels(check_docker(replace(DOCKER, **change))) == wanted  # type: ignore[arg-type]


def test_findings_as_json() -> None:
    found = [good("a", "fine"), warn("b", "slow", "faster")]
    told = json.loads(findings_as_json(found))
    assert told["level"] == "warn"
    assert told["findings"][1] == {"level": "warn", "what": "b", "seen": "slow", "change": "faster"}
    assert worst([]) is Level.OK
    assert worst([*found, bad("c", "off", "on")]) is Level.BAD


def test_a_finding_says_what_to_change_unless_all_is_well() -> None:
    with pytest.raises(AssertionError):
        warn("a", "b", "")
