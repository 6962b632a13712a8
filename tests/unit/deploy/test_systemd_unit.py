"""The systemd unit: what systemd itself says of it, and the one number that it shares with the server."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from decode_server.service.serve import Serve
from framefeed.grace import DRAIN_S, STOP_GRACE_S

UNIT = Path(__file__).parents[3] / "deploy/systemd/framefeed-serve.service"


@pytest.fixture
def service() -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_it_is_given_longer_than_its_drain(service: dict[str, str]) -> None:
    assert Serve(root=Path()).drain_s == DRAIN_S
    assert DRAIN_S + 5 <= float(service["TimeoutStopSec"]) == STOP_GRACE_S


def test_it_is_started_again_for_ever(service: dict[str, str]) -> None:
    assert "StartLimitIntervalSec=0" in UNIT.read_text()
    assert (service["Restart"], float(service["RestartSec"]) > 0) == ("on-failure", True)


BOUNDED = ("MemoryMax", "LimitNOFILE", "TasksMax", "LimitCORE")
FORBIDDEN = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "PrivateDevices": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
}


def test_what_a_server_may_take_and_do_is_bounded(service: dict[str, str]) -> None:
    assert [name for name in BOUNDED if not service.get(name)] == []
    assert {name: service.get(name) for name in FORBIDDEN} == FORBIDDEN
    lines = UNIT.read_text().splitlines()
    assert "SystemCallFilter=@system-service" in lines
    assert [line for line in lines if line.startswith("SystemCallFilter=") and "landlock_restrict_self" in line]


def test_a_process_that_runs_out_of_memory_is_no_end_of_the_others(service: dict[str, str]) -> None:
    assert service["OOMPolicy"] == "continue"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_and_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/framefeed/.venv/bin/framefeed", "/bin/true"))
    verify = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (verify.returncode, verify.stderr) == (0, "")
    at_most = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit]
    exposed = subprocess.run(at_most, capture_output=True, text=True, check=False)
    assert exposed.returncode == 0, exposed.stdout.splitlines()[-1]
