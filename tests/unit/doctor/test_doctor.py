"""`framefeed doctor` as a user types it: on this machine, and over servers that answer, are odd or are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from decode_server.service.membership.registry import write_entry
from framefeed.cli.command import main
from framefeed.cli.doctor.collect_host import collect_host
from framefeed.cli.doctor.finding import Level, worst
from framefeed.cli.doctor.read_speed import measure_reading
from framefeed.page_server import PageServer
from framefeed.server_entry import SUFFIX, host_id
from framefeed.wire import ServerReply
from tests.clip_servers import ClipServer, Manner
from tests.entries import entry
from tests.manifests import manifest_of
from trainer_client.server_findings import ServerFacts, check_servers

WHO = ServerReply(attempt=1, server="a", fingerprint="f1", videos=3, workers=2, state="ready", dataset="d1")
FACTS = ServerFacts(url="tcp://a:1", who=WHO, clip_s=0.02, clip_sha256="x", network_bytes_s=1e9, clock_s=0.2)

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs it: (exit code, what it printed)."""

    def run(*args: str) -> tuple[int, dict[str, Any]]:
        try:
            code = main(["doctor", "--json", "--limit-s", "5", *args])
        except SystemExit as stop:
            code = int(str(stop.code))
        said = capsys.readouterr().out
        return code, json.loads(said) if said else {}

    return run


def test_this_machine_is_looked_at_and_its_folder_read(doctor: Run, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(500_000))
    code, told = doctor(str(tmp_path), "--read-s", "0.5")
    seen = {row["what"]: row for row in told["findings"]}
    assert {"open files", "memory", "CPUs", "CPU quota", "decoder", "GPU", f"reading {tmp_path}"} <= set(seen)
    assert code == max({"ok": 0, "warn": 1, "bad": 2}[row["level"]] for row in told["findings"])
    assert "clips/s" in seen[f"reading {tmp_path}"]["seen"]


def test_bad_options_are_one_line(doctor: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (
        ["nowhere"],
        ["--clips-s", "-1"],
        ["--limit-s", "0"],
        ["--ports", "0"],
        ["--nfs", ":2049"],
        ["--nfs", "h:99999"],
        ["--nfs", "fd00::1"],
    ):
        assert doctor(*args)[0] == 2
    for servers in ("http://a", "local"):
        assert doctor("--servers", servers)[0] == 2
    assert all(line.startswith("framefeed: ") for line in capsys.readouterr().err.splitlines())


def test_servers_that_cannot_be_looked_for_are_a_finding_beside_the_others(doctor: Run) -> None:
    code, told = doctor("--servers", "registry:///nowhere/at/all")
    levels = {row["what"]: row["level"] for row in told["findings"]}
    assert (code, levels["servers"]) == (2, "bad")
    assert "CPUs" in levels


def test_a_root_that_cannot_be_looked_at_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("doctor", "serve"):
        assert main([verb, "a" * 300]) == 2
        assert "cannot be looked at: File name too long" in capsys.readouterr().err


def test_all_of_a_folder_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.mp4").write_bytes(bytes(500_000))
    (tmp_path / "sub" / "b.mp4").write_bytes(bytes(1000))
    speed = measure_reading(tmp_path, for_s=30)
    assert (speed.read_bytes, speed.trouble) == (501_000, "")
    assert measure_reading(tmp_path / "sub" / "none", for_s=1).trouble


def test_a_taken_port_and_an_nfs_server_that_is_away_are_facts() -> None:
    with ClipServer() as server:
        port = server.port
        facts = collect_host(root=None, ports=(port,), nfs=f"127.0.0.1:{port}", nfs_options="ro", limit_s=5)
        assert list(facts.taken_ports) == [port]
        assert facts.nfs is not None
        assert facts.nfs.connect_s is not None
    gone = collect_host(root=None, ports=(), nfs=f"127.0.0.1:{port}", nfs_options="ro", limit_s=5).nfs
    assert gone is not None
    assert gone.connect_s is None
    assert "refused" in gone.trouble


def test_servers_are_reached_asked_and_measured(doctor: Run, tmp_path: Path) -> None:
    manifest_of({"v": 10.0}).write(tmp_path)
    with ClipServer() as one, ClipServer() as two:
        _, told = doctor(str(tmp_path), "--read-s", "0", "--servers", one.url, two.url, "--clips-s", "1")
        rows = [row for row in told["findings"] if row["what"].startswith("server ")]
        assert [row["seen"][:5] for row in rows].count("ready") == 2
        assert sum("gave a clip within" in row["seen"] for row in rows) == 2
        assert {row["what"]: row["level"] for row in told["findings"]}["network"] == "ok"
        assert one.decode_calls == two.decode_calls == 4


@pytest.mark.slow
def test_odd_and_lost_servers_are_named(doctor: Run, tmp_path: Path) -> None:
    manifest_of({"v": 10.0}).write(tmp_path)
    with ClipServer() as one, ClipServer(Manner(fingerprint="other", other_pixels=True)) as odd:
        gone = ClipServer()
        gone_url = gone.url
        with gone:
            pass
        code, told = doctor(str(tmp_path), "--read-s", "0", "--limit-s", "2", "--servers", one.url, odd.url, gone_url)
    wrong = {row["what"]: row["seen"] for row in told["findings"] if row["level"] == "bad"}
    assert code == 2
    assert "no connection within 2 s" in wrong[f"server {gone_url}"]
    assert wrong["decoders"] == "2 kinds: fake-1, other"
    assert wrong["clips"] == "differ between servers"


def test_without_a_root_servers_are_asked_who_they_are_alone(doctor: Run) -> None:
    with ClipServer() as server:
        _, told = doctor("--servers", server.url)
        assert server.decode_calls == 0
    assert "clips" in {row["what"] for row in told["findings"]}


def test_the_clock_of_a_registry_s_server_is_compared(doctor: Run, tmp_path: Path) -> None:
    page = PageServer("127.0.0.1", 0, get=lambda path: (200, "text/plain", b"ok"))
    try:
        with ClipServer() as server:
            told_of = entry(
                server="a", endpoints=(server.url,), host=host_id(), lease_s=3600.0, metrics_url=f"{page.url}/metrics"
            )
            write_entry(tmp_path / f"a{SUFFIX}", told_of)
            _, told = doctor("--servers", f"registry://{tmp_path}")
    finally:
        page.close()
    assert [row for row in told["findings"] if "its clock" in row["seen"]] == []
    assert any(row["what"] == f"server {server.url}" for row in told["findings"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"who": None, "trouble": "no connection"}, "firewalls"),
        ({"who": structs.replace(WHO, state="draining")}, "before it is gone"),
        ({"clip_s": 9.0}, "queue"),
        ({"clip_s": None, "clip_trouble": "corrupt"}, "ask again"),
        ({"clock_s": -90.0}, "NTP"),
    ],
)
def test_what_is_wrong_with_one_server(change: dict[str, Any], words: str) -> None:
    found = check_servers([replace(FACTS, **change), FACTS], dataset="d1", clips_s=0)
    assert worst(found) is not Level.OK
    assert words in " ".join(finding.change for finding in found)


def test_the_need_is_compared_with_the_network() -> None:
    slow = replace(FACTS, url="tcp://b:1", network_bytes_s=1e8)
    assert worst(check_servers([FACTS], dataset="d1", clips_s=1000)) is Level.OK
    assert worst(check_servers([FACTS, slow], dataset="d1", clips_s=1000)) is Level.WARN
    assert worst(check_servers([slow], dataset="d1", clips_s=1000)) is Level.BAD
    assert worst(check_servers([FACTS], dataset="d2", clips_s=0)) is Level.BAD
    assert worst(check_servers([], dataset="", clips_s=0)) is Level.BAD
