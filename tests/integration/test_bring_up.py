"""framefeed as a user brings it up: deploy/compose.yaml on a real Docker engine, from the images of this tree.

One story, told once: two decode servers on different CPUs feed a trainer, with encrypted connections; two more join,
one is killed and another paused while it trains, then all of them; then all of it is stopped. The same run undisturbed
is its measure. FRAMEFEED_PREVIEWS=docs keeps the pictures that are drawn of the dashboards.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import torch

from deploy.grafana.dashboards import BOARDS
from deploy.images.build import Build
from framefeed.grace import STOP_GRACE_S
from tests.integration import bring_up_story as tell
from tests.integration.bring_up_story import EVERY_STEPS, PASSWORD, Story
from tests.integration.composition import Composition, remove_leftovers
from tests.integration.engine import BASE, DECODE, KEPT, PROMETHEUS, ROOT, TRAIN, build_images, docker_engine

pytestmark = [pytest.mark.bring_up, pytest.mark.timeout(1800)]

DISTURBED, CALM = "framefeed-disturbed", "framefeed-calm"
CPUS = sorted(os.sched_getaffinity(0))
# No homes: two videos have two, and who is no home gives clips only where loads are uneven.
TRAINING = (
    "--affinity-slack None --preset tiny --mask-ratio 0.5 --batch-clips 4 --lr 1.5e-3 --precision fp32 --threads 1 "
    f"--steps 20000 --checkpoint-every {EVERY_STEPS} --keep-checkpoints 1000 --sheet-every {EVERY_STEPS}"
)
VIDEOS = "framefeed-test-videos"  # a volume that both runs read
ALERTS, RULES, SCRAPES = (f"prometheus/{name}.yml" for name in ("alerts", "rules", "prometheus"))
# What a run of mae on CPUs has no numbers for: GPUs, a fleet's autoscaler on Ray, scores of samples with labels.
_ELSEWHERE = ("_gpu_", "framefeed_fleet_", "framefeed_trainer_score", "framefeed_trainer_evaluated_")
NOT_HERE = {  # panel, expression
    (panel.title, expression.replace("$__rate_interval", "1m"))
    for board in BOARDS
    for panel in board.panels
    for expression, _ in panel.queries
    if any(name in expression for name in _ELSEWHERE)
}
_DRAINED = "drained: every request was answered"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    with docker_engine() as client:
        remove_leftovers(client, DISTURBED, CALM)
        build_images(client)
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """deploy/ with secrets in it, and a Prometheus that looks often and tells at once what is wrong."""
    copy = tmp_path_factory.mktemp("up") / "deploy"
    shutil.copytree(ROOT / "deploy", copy)
    config = copy / SCRAPES
    config.write_text(re.sub(r"\b(\w+_interval|scrape_timeout): \d+s", r"\1: 2s", config.read_text()))
    alerts = copy / ALERTS
    alerts.write_text(re.sub(r"\bfor: \w+", "for: 1s", alerts.read_text()))
    for file in (alerts, copy / RULES):
        file.write_text(re.sub(r"\[\d+m\]", "[15s]", file.read_text()))
    secrets = copy / "secrets"
    (secrets / "grafana_password").write_text(PASSWORD)
    for name in ("server", "trainer"):
        command = [sys.executable, "-c", "from framefeed.cli.command import main; raise SystemExit(main())"]
        subprocess.run([*command, "keys", str(secrets), name], check=True, capture_output=True)
    shutil.copy(secrets / "trainer.public", secrets / "trainers.allowed")
    for file in secrets.iterdir():
        os.chown(file, 10001, 10001)
    return copy


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def settings(run: str) -> dict[str, str]:
    return {
        "DECODE_IMAGE": DECODE,
        "TRAIN_IMAGE": TRAIN,
        "PROMETHEUS_IMAGE": PROMETHEUS,
        "PROMETHEUS_PORT": free_port(),
        "GRAFANA_PORT": free_port(),
        "DECODE_S0_CPUS": str(CPUS[0]),
        "DECODE_S1_CPUS": str(CPUS[-1]),
        "DECODE_OPTIONS": "--threads 1",
        "DEMO_OPTIONS": "--videos 2 --seconds 6",
        "TRAIN_OPTIONS": TRAINING,
        "RUN": run,
        "VIDEOS": VIDEOS,
    }


# A box of two fronts, on all CPUs.
A_BOX = f"""
services:
  decode-box:
    extends: {{file: compose.yaml, service: decode-s1}}
    cpuset: "{CPUS[0]},{CPUS[-1]}"
    command: >-
      serve /videos --bind tcp://0.0.0.0:5555 --public --metrics-host 0.0.0.0 --fronts 2 --workers 2 --threads 1
      --curve-key /run/secrets/server_key --curve-allow /run/secrets/trainers_allowed
    secrets: [server_key, trainers_allowed]
"""
SERVICES = ("decode-s0", "decode-s1", "trainer", "prometheus")


@pytest.fixture(scope="module")
def videos(engine: docker.DockerClient) -> Iterator[str]:
    for left in engine.volumes.list(filters={"name": VIDEOS}):
        left.remove(force=True)
    volume = engine.volumes.create(VIDEOS)
    yield volume.name
    volume.remove(force=True)


@pytest.fixture(scope="module")
def story(engine: docker.DockerClient, folder: Path, videos: str) -> Story:
    told = Story()
    override = folder / "compose.test.yaml"
    override.write_text(f"volumes: {{{videos}: {{external: true}}}}\n")
    box = folder / "compose.box.yaml"
    box.write_text(A_BOX)
    files = ["compose.yaml", "compose.curve.yaml", override.name, box.name]
    with Composition(engine, folder, name=DISTURBED, files=files, env=settings("disturbed")) as up:
        with told.timed("videos"):
            up.compose("run", "--rm", "demo-videos")
        with told.timed("servers"):
            tell.tell_servers(told, up)
        with told.timed("up"):
            up.compose("up", "--detach", "--wait", *SERVICES)
        for part in (
            tell.tell_start,
            tell.tell_scaling,
            tell.tell_faults,
            tell.tell_fronts,
            tell.tell_alerts,
            tell.tell_panels,
            tell.tell_grafana,
        ):
            with told.timed(part.__name__.removeprefix("tell_")):
                part(told, up)
        tell.tell_secrets(told, up, folder)
        with told.timed("end"):
            tell.tell_end(told, up)
    for file in (ALERTS, RULES, SCRAPES):
        shutil.copy(ROOT / "deploy" / file, folder / file)
    files = ["compose.yaml", override.name]
    with told.timed("calm"), Composition(engine, folder, name=CALM, files=files, env=settings("calm")) as up:
        up.compose("up", "--detach", "--wait", *SERVICES)
        up.wait("the same step", lambda: up.steps > told.step)
        told.calm_state = tell.loaded(up.trainer, f"/runs/calm/step_{told.step:09d}")
        told.calm_alerts = [f"{alert['labels']} {alert['state']}" for alert in up.prometheus("alerts")["alerts"]]
    tell.print_story(told, engine)
    return told


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


def test_every_front_of_a_box_is_watched_by_who_knows_the_trainer_alone(story: Story) -> None:
    assert len(story.fronts) == 5  # of four containers
    assert story.fronts_watched == dict.fromkeys(("Prometheus", "status page", "top"), story.fronts)


def test_training_goes_on_without_one_that_was_killed_and_one_that_hangs(story: Story) -> None:
    assert story.steps_without >= 80


def test_the_disturbed_run_is_the_undisturbed_one_to_the_byte(story: Story) -> None:
    disturbed, calm = digest(story.state), digest(story.calm_state)
    assert len(disturbed) > 50
    differ = {name for name, leaf in disturbed.items() if calm.get(name) != leaf} | calm.keys() - disturbed.keys()
    assert differ == {"config.out.", "config.curve_key.", "config.curve_server."}  # where it lies and with which keys


def test_all_of_it_ends_in_good_order_within_the_grace(story: Story) -> None:
    assert story.exits
    assert set(story.exits.values()) == {0}, story.exits
    assert story.down_s < STOP_GRACE_S
    assert [_DRAINED in said for said in story.said_at_stop] == [True] * 4, story.said_at_stop
    assert story.lost_by_drain == 0
    assert len(story.drains) == 4
    for name, counters in story.drains.items():
        assert (counters["draining"], counters["lost"]) == (1, 0), name
        assert counters["answered"] > 0, name


def test_no_alert_fires_in_an_undisturbed_run(story: Story) -> None:
    assert [alert for alert in story.calm_alerts if "firing" in alert] == []


def test_faults_made_fire_their_alerts(story: Story) -> None:
    assert "FramefeedServerGone" in story.fired["one server hangs"]
    assert "FramefeedTrainerGone" not in story.fired["one server hangs"]
    assert {"FramefeedServerGone", "FramefeedStarving"} <= story.fired["all servers hang"]
    assert "FramefeedTrainerSilent" in story.fired["all servers hang"]
    assert "FramefeedTrainerGone" in story.fired["the trainer hangs"]
    assert not any("FramefeedConservationBroken" in fired for fired in story.fired.values())


def test_every_panel_and_rule_has_data_and_no_nan(story: Story) -> None:
    assert story.queries > 80
    assert story.queries_with_nan == []
    assert {asked for asked in story.queries_without_data if not any(name in asked for name in _ELSEWHERE)} == set()
    assert {expression for _, expression in NOT_HERE} - story.queries_without_data == set()


def test_every_dashboard_is_drawn_with_data_in_each_panel(story: Story) -> None:
    assert story.pictures.keys() == {board.uid for board in BOARDS}
    assert all(size > 10_000 for size in story.pictures.values()), story.pictures
    assert story.panels_without_data == {title for title, _ in NOT_HERE}


def test_grafana_has_each_dashboard_and_reaches_prometheus(story: Story) -> None:
    if story.without_grafana:
        pytest.skip(story.without_grafana)
    assert story.grafana.pop("data source") == "OK"
    assert story.grafana == {
        board.uid: f"{len(board.panels) + len(board.rows)} panels, provisioned True" for board in BOARDS
    }


def test_no_process_has_a_capability_may_gain_one_is_root_or_can_write_to_its_image(story: Story) -> None:
    assert len(story.processes) >= 8  # two servers' fronts, gateways and workers, a trainer, Prometheus
    for process in story.processes:
        kept = {name: int(process[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert set(kept.values()) == {0}, process["Name"]
        assert process["NoNewPrivs"] == "1", process["Name"]
        assert "0" not in process["Uid"].split(), process["Name"]
    assert story.writable_roots == []


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
