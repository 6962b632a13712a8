"""framefeed as a user brings it up: deploy/compose.yaml on a real Docker engine, from the images of this tree.

One story, told once: two decode servers on different CPUs feed a trainer, with encrypted connections; two more join,
one is killed and another paused while it trains; then all of it is stopped. The same run undisturbed is its measure.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
import safetensors.torch
import torch
import yaml
from docker.models.containers import Container

from deploy.grafana.dashboards import BOARDS
from deploy.images.build import Build
from framefeed.grace import STOP_GRACE_S
from tests.integration.composition import Composition, address, file_of
from tests.integration.engine import BASE, DECODE, KEPT, PROMETHEUS, ROOT, TRAIN, build_images, docker_engine

pytestmark = [pytest.mark.bring_up, pytest.mark.timeout(1800)]

DISTURBED, CALM = "framefeed-disturbed", "framefeed-calm"
CPUS = sorted(os.sched_getaffinity(0))
EVERY_STEPS = 20
TRAINING = (
    "--preset tiny --mask-ratio 0.5 --batch-clips 4 --lr 1.5e-3 --precision fp32 --threads 1 --steps 20000 "
    f"--checkpoint-every {EVERY_STEPS} --keep-checkpoints 1000"
)
VIDEOS = "framefeed-test-videos"  # a volume that both runs read
PASSWORD = "a-password-that-no-image-has-seen"
_DRAINED = "drained: every request was answered"


@dataclass
class Story:
    """What was seen, in the order in which it happened."""

    ready_s: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    affinity: dict[str, set[str]] = field(default_factory=dict)
    first_fed_by: set[str] = field(default_factory=set)
    all_servers: set[str] = field(default_factory=set)
    targets: dict[str, set[str]] = field(default_factory=dict)
    fed_by: set[str] = field(default_factory=set)
    trainer_starts: set[tuple[str, str, int]] = field(default_factory=set)
    steps_without: int = 0
    said_at_stop: list[str] = field(default_factory=list)
    lost_by_drain: float = 0.0
    exits: dict[str, int] = field(default_factory=dict)
    down_s: float = 0.0
    queries_without_data: list[str] = field(default_factory=list)
    secrets_seen_in: list[str] = field(default_factory=list)
    published: set[str] = field(default_factory=set)
    step: int = 0
    state: Any = None
    calm_state: Any = None
    calm_alerts: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    with docker_engine() as client:
        build_images(client)
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """deploy/ with secrets in it, and a Prometheus that looks each second."""
    copy = tmp_path_factory.mktemp("up") / "deploy"
    shutil.copytree(ROOT / "deploy", copy)
    config = copy / "prometheus/prometheus.yml"
    config.write_text(re.sub(r"\b(\w+_interval|scrape_timeout): \d+s", r"\1: 1s", config.read_text()))
    secrets = copy / "secrets"
    (secrets / "grafana_password").write_text(PASSWORD)
    for name in ("server", "trainer"):
        command = [sys.executable, "-c", "from framefeed.cli.command import main; raise SystemExit(main())"]
        subprocess.run([*command, "keys", str(secrets), name], check=True, capture_output=True)
    shutil.copy(secrets / "trainer.public", secrets / "trainers.allowed")
    for file in secrets.iterdir():
        os.chown(file, 10001, 10001)
    return copy


def settings(run: str) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "DECODE_IMAGE": DECODE,
        "TRAIN_IMAGE": TRAIN,
        "PROMETHEUS_IMAGE": PROMETHEUS,
        "PROMETHEUS_PORT": str(port),
        "DECODE_S0_CPUS": str(CPUS[0]),
        "DECODE_S1_CPUS": str(CPUS[-1]),
        "DECODE_OPTIONS": "--threads 1",
        "DEMO_OPTIONS": "--videos 3 --seconds 8",
        "TRAIN_OPTIONS": TRAINING,
        "RUN": run,
        "VIDEOS": VIDEOS,
    }


SERVICES = ("decode-s0", "decode-s1", "trainer", "prometheus")


@pytest.fixture(scope="module")
def videos(engine: docker.DockerClient) -> Iterator[str]:
    volume = engine.volumes.create(VIDEOS)
    yield volume.name
    volume.remove(force=True)


@pytest.fixture(scope="module")
def story(engine: docker.DockerClient, folder: Path, videos: str) -> Story:
    told = Story()
    override = folder / "compose.test.yaml"
    override.write_text(f"volumes: {{{videos}: {{external: true}}}}\n")
    files = ["compose.yaml", "compose.curve.yaml", override.name]
    with Composition(engine, folder, name=DISTURBED, files=files, env=settings("disturbed")) as up:
        up.compose("run", "--rm", "demo-videos")
        up.compose("up", "--detach", "--wait", *SERVICES)
        tell_start(told, up)
        tell_scaling(told, up)
        tell_faults(told, up)
        tell_panels(told, up)
        tell_secrets(told, up, folder)
        tell_end(told, up, engine)
    files = ["compose.yaml", override.name]
    with Composition(engine, folder, name=CALM, files=files, env=settings("calm")) as up:
        up.compose("up", "--detach", "--wait", *SERVICES)
        up.wait("the same step", lambda: up.steps > told.step, patience_s=300)
        told.calm_state = loaded(up.trainer, f"/runs/calm/step_{told.step:09d}")
        told.calm_alerts = [f"{alert['labels']} {alert['state']}" for alert in up.prometheus("alerts")["alerts"]]
    print_story(told, engine)
    return told


def tell_start(told: Story, up: Composition) -> None:
    up.train(5)
    up.wait("both servers feed it", lambda: len(up.fed_by()) == 2)
    told.first_fed_by = up.fed_by()
    told.trainer_starts.add(started(up))
    for server in up.servers:
        told.ready_s[server.name] = ready_after_s(server)
        told.affinity[server.name] = {
            line.split()[1]
            for process in server.top()["Processes"]
            for thread in Path(f"/proc/{process[1]}/task").glob("*/status")
            for line in thread.read_text().splitlines()
            if line.startswith("Cpus_allowed_list")
        }


def tell_scaling(told: Story, up: Composition) -> None:
    up.compose(
        "up", "--detach", "--wait", "--no-recreate", "--scale", "decode-s0=2", "--scale", "decode-s1=2",
        "decode-s0", "decode-s1",
    )  # fmt: skip
    told.all_servers = {address(server) for server in up.servers}
    up.wait("all four are targets", lambda: up.targets().get("decode") == told.all_servers)
    up.wait("all four feed it", lambda: hosts(up.fed_by()) == told.all_servers)
    up.wait("the trainer is a target", lambda: "trainer" in up.targets())
    told.targets, told.fed_by = up.targets(), hosts(up.fed_by())
    for container in (*up.servers, up.trainer):
        stats = container.stats(stream=False)["memory_stats"]
        told.memory_mib[container.name] = (stats["usage"] - stats["stats"].get("total_inactive_file", 0)) / 2**20


def tell_faults(told: Story, up: Composition) -> None:
    before = up.steps
    up.servers[0].kill()
    up.train(20)
    up.servers[-1].pause()
    up.train(60)
    told.steps_without = up.steps - before
    up.servers[-1].unpause()
    up.train(10)
    told.trainer_starts.add(started(up))


def tell_panels(told: Story, up: Composition) -> None:
    """Every expression of a panel or a rule, on this Prometheus, after this traffic."""
    panels = {expression for board in BOARDS for panel in board.panels for expression, _ in panel.queries}
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"]
    expressions = {expression.replace("$__rate_interval", "1m") for expression in panels}
    expressions |= {rule["record"] for group in rules for rule in group["rules"]}
    up.wait("a minute of rates", lambda: up.prometheus("query", query="up offset 1m")["result"], patience_s=90)
    for expression in sorted(expressions):
        result = up.prometheus("query", query=expression)["result"]
        if not result or any(series["value"][1] == "NaN" for series in result):
            told.queries_without_data.append(f"{expression} gives {result}")


def tell_secrets(told: Story, up: Composition, folder: Path) -> None:
    secrets = [PASSWORD, *((folder / f"secrets/{name}.secret").read_text().strip() for name in ("server", "trainer"))]
    places = {f"image {tag}": str(up.client.api.history(tag)) for tag in (DECODE, TRAIN)}
    places |= {f"image {tag}": str(up.client.images.get(tag).attrs) for tag in (DECODE, TRAIN)}
    for container in (*up.servers, up.trainer):
        places[f"container {container.name}"] = str(container.attrs)
        places[f"log of {container.name}"] = container.logs().decode(errors="replace")
        told.published |= {str(bound) for bound in container.ports.values() if bound}
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                places[f"{process / name}"] = (process / name).read_bytes().decode(errors="replace")
            except OSError:
                continue
    told.secrets_seen_in = [place for place, text in places.items() if any(secret in text for secret in secrets)]
    (prometheus,) = up.containers("prometheus")
    told.published |= {bound["HostIp"] for bounds in prometheus.ports.values() for bound in bounds or ()}


def tell_end(told: Story, up: Composition, engine: docker.DockerClient) -> None:
    # One server while clips are asked of it: what it was asked for comes.
    draining = up.servers[1]
    (url,) = (url for url in up.fed_by() if hosts({url}) == {address(draining)})
    lost = up.total(up.trainer, "framefeed_client_requests_total", server=url, outcome="server_lost")
    draining.stop(timeout=STOP_GRACE_S)
    up.train(10)
    after = up.total(up.trainer, "framefeed_client_requests_total", server=url, outcome="server_lost")
    told.lost_by_drain = after - lost
    draining.reload()
    told.exits[draining.name] = draining.attrs["State"]["ExitCode"]
    told.said_at_stop.append(draining.logs(tail=20).decode())
    told.step = up.steps // EVERY_STEPS * EVERY_STEPS
    told.state = loaded(up.trainer, f"/runs/disturbed/step_{told.step:09d}")
    running = {c.id: c for c in (*up.servers, up.trainer, *up.containers("prometheus")) if c.status == "running"}
    since, began_s = int(time.time()), time.monotonic()
    up.compose("stop")
    told.down_s = time.monotonic() - began_s
    for container in running.values():
        container.reload()
        told.exits[container.name] = container.attrs["State"]["ExitCode"]
        if "decode" in container.name:
            told.said_at_stop.append(container.logs(since=since).decode())
    up.compose("down")


def print_story(told: Story, engine: docker.DockerClient) -> None:
    sizes = {tag: engine.images.get(tag).attrs["Size"] / 1e6 for tag in ("framefeed-base:bookworm", DECODE, TRAIN)}
    print("\nimages (MB):", {tag: round(size) for tag, size in sizes.items()})
    print("ready after (s):", {name: round(ready_s, 2) for name, ready_s in told.ready_s.items()})
    print("memory (MiB):", {name: round(mib) for name, mib in told.memory_mib.items()})
    print(f"stopped in {told.down_s:.1f} s, compared after {told.step} steps")


def started(up: Composition) -> tuple[str, str, int]:
    trainer = up.trainer
    return trainer.id, trainer.attrs["State"]["StartedAt"], trainer.attrs["RestartCount"]


def ready_after_s(server: Any) -> float:
    """From the start of the container to the line of the server that says that /readyz is."""
    since = server.attrs["State"]["StartedAt"]
    (line,) = (
        line
        for line in server.logs(timestamps=True).decode().splitlines()
        if line.endswith("INFO framefeed.serve ready")
    )
    return seconds(line.split()[0]) - seconds(since)


def seconds(stamp: str) -> float:
    clock, _, fraction = stamp.rstrip("Z").partition(".")
    return time.mktime(time.strptime(clock, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction}")


def hosts(urls: set[str]) -> set[str]:
    return {url.rpartition("//")[2].rpartition(":")[0] for url in urls}


def loaded(trainer: Container, checkpoint: str) -> Any:
    """The tensors of a checkpoint, and what its run and its data were."""
    header = json.loads(file_of(trainer, f"{checkpoint}/checkpoint.json"))
    part = json.loads(file_of(trainer, f"{checkpoint}/part_00000.json"))
    tensors = safetensors.torch.load(file_of(trainer, f"{checkpoint}/part_00000.safetensors"))
    return {"config": header["config"], "step": header["step"], "data": part["data"], "tensors": tensors}


def digest(state: Any) -> dict[str, str]:
    """What a checkpoint holds, leaf by leaf: tensors by their bytes."""
    if isinstance(state, torch.Tensor):
        return {"": hashlib.sha256(state.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()}
    if isinstance(state, dict):
        return {f"{key}.{name}": leaf for key, value in state.items() for name, leaf in digest(value).items()}
    if isinstance(state, list | tuple):
        return {f"{at}.{name}": leaf for at, value in enumerate(state) for name, leaf in digest(value).items()}
    return {"": repr(state)}


def test_two_servers_on_their_own_cpus_feed_the_trainer(story: Story) -> None:
    assert len(story.first_fed_by) == 2
    assert sorted(story.affinity.values(), key=str) == sorted([{str(CPUS[0])}, {str(CPUS[-1])}], key=str)


def test_servers_that_join_are_used_and_watched_without_a_restart(story: Story) -> None:
    assert len(story.all_servers) == 4
    assert story.targets["decode"] == story.fed_by == story.all_servers
    assert len(story.trainer_starts) == 1


def test_training_goes_on_without_one_that_was_killed_and_one_that_hangs(story: Story) -> None:
    assert story.steps_without >= 80


def test_the_disturbed_run_is_the_undisturbed_one_to_the_byte(story: Story) -> None:
    disturbed, calm = digest(story.state), digest(story.calm_state)
    assert len(disturbed) > 50
    assert {name: leaf for name, leaf in disturbed.items() if calm.get(name) != leaf} == {}


def test_all_of_it_ends_in_good_order_within_the_grace(story: Story) -> None:
    assert story.exits
    assert set(story.exits.values()) == {0}, story.exits
    assert story.down_s < STOP_GRACE_S
    assert [_DRAINED in said for said in story.said_at_stop] == [True] * 3, story.said_at_stop
    assert story.lost_by_drain == 0


def test_no_alert_fires_or_is_about_to_in_an_undisturbed_run(story: Story) -> None:
    assert [alert for alert in story.calm_alerts if "firing" in alert] == []


def test_every_panel_and_rule_has_data_and_no_nan(story: Story) -> None:
    assert story.queries_without_data == []


def test_secrets_are_in_their_files_alone_and_nothing_is_open_to_other_machines(story: Story) -> None:
    assert story.secrets_seen_in == []
    assert story.published == {"127.0.0.1"}


def test_a_decode_image_is_small_and_has_no_torch(engine: docker.DockerClient) -> None:
    added = engine.images.get(DECODE).attrs["Size"] - engine.images.get(BASE).attrs["Size"]
    assert added <= 300e6
    files = tree(engine, DECODE)
    assert any(name.endswith("/decode_server/service/serve.py") for name in files)
    assert [name for name in files if "/site-packages/torch/" in name] == []


def test_the_same_inputs_give_the_same_image_but_for_its_times(engine: docker.DockerClient) -> None:
    again = "framefeed-decode:again"
    Build(target="decode", base=BASE, tag=again, wheels=KEPT / "wheels-decode", no_cache=True).run()
    try:
        assert tree(engine, again) == tree(engine, DECODE)
    finally:
        engine.images.remove(again, force=True)


def tree(engine: docker.DockerClient, tag: str) -> dict[str, tuple[int, int, str]]:
    """Mode, owner and content of each file that an image adds to its base."""
    container = engine.containers.create(tag)
    try:
        chunks, _ = container.get_archive("/opt/framefeed")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            return {
                member.name: (member.mode, member.uid, member.linkname or content_digest(archive, member))
                for member in archive.getmembers()
            }
    finally:
        container.remove()


def content_digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    return hashlib.sha256(file.read()).hexdigest() if file else ""
