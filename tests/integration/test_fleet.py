"""Decode servers on three hosts by Ray, which places, restarts and ends them, and through which no clip passes.

One story, in order: up, a pulled cable, a drained server, a load that rises and falls, a head that is killed. Hosts are
network namespaces, so cables are real; the trainer is this process and has its servers from the registry.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.batch_log import line_of
from tests.chaos.fleet import SERVER, make_videos, plan
from tests.chaos.hosts import Host, hosts_can_be_made
from tests.integration.ray_boxes import ROOT, START_S, RayBoxes, ray_python
from tests.integration.serving import SERVE, Server, wait_until
from trainer_client.loader import ClipLoader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LOAD = ROOT / "tests/unit/fleet/load.json"
BIND = ("--bind", "tcp://0.0.0.0:0", "--public", "--insecure", "--metrics-port", "0", "--lease-s", "9")


@dataclass
class Story:
    """The cluster, its hosts by address, the trainer's feed, and what each of its batches was."""

    boxes: RayBoxes
    hosts: dict[str, Host]
    run: ClipLoader
    seen: list[Any] = field(default_factory=list)

    def take(self, count: int = 1) -> None:
        self.seen += [line_of(next(self.run)).identity for _ in range(count)]

    def up(self) -> list[dict[str, Any]]:
        """The servers that are up."""
        return [server for server in self.boxes.status() or [] if server["state"] == "up"]

    def serving(self) -> set[str]:
        """Addresses of the hosts that gave clips, since the beginning."""
        answered = [url for (url, outcome), count in self.run.stats.requests.items() if outcome == "ok" and count]
        return {address for address in self.hosts if any(f"//{address}:" in url for url in answered)}

    def failed(self) -> int:
        """Requests that ended with neither a clip nor a notice of leaving."""
        return sum(count for why, count in self.run.stats.dropped.items() if why != "draining")

    def wait(self, what: str, seen: Any) -> None:
        """Train until it is so."""

        def look() -> bool:
            self.take()
            return bool(seen())

        wait_until(what, look, patience_s=START_S)


def scale_by(story: Story, load: Path, *, least: int) -> tuple[list[int], str]:
    """An autoscaler beside the run, over a load from a file: how many were up after each turn, and its log."""
    program = [ray_python(), "-m", "tests.integration.fleet_load", story.boxes.address, str(load), str(least)]
    with subprocess.Popen(
        program, env=story.boxes.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as scaling:
        story.wait("the load's end", lambda: scaling.poll() is not None)
        said, log = scaling.communicate(timeout=10)
    assert scaling.returncode == 0, log
    return [int(line) for line in said.split()], log


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    if not ray_python():
        pytest.skip("Ray is not installed: FRAMEFEED_RAY_PYTHON names a Python that has it and framefeed")
    if why := hosts_can_be_made():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("fleet")
    videos, registry = folder / "videos", folder / "servers"
    videos.mkdir()
    registry.mkdir()
    root = make_videos(videos)
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host(number)) for number in range(3)]
        boxes = stack.enter_context(RayBoxes(hosts))
        options = [f"--serve={option}" for option in (*BIND, *SERVER)]
        words = ("up", str(root), "--registry", str(registry), "--servers", "2", "--python", sys.executable, *options)
        done = boxes.fleet(*words)
        assert done.returncode == 0, done.stderr
        feed = {"batch_clips": 4, "look_every_s": 0.5, "attempt_s": 3.0, "hedge_share": 0.0, "affinity_slack": None}
        trainer = plan(root, folder, [f"registry://{registry}"], steps=None, stall_s=90.0, **feed)
        run = stack.enter_context(trainer.open())
        story = Story(boxes=boxes, hosts={host.address: host for host in hosts}, run=run)
        yield story
        assert run.stats.conserved
        near = stack.enter_context(Server(folder, str(root), *SERVER, program=SERVE))
        with plan(root, folder, [near], steps=len(story.seen), batch_clips=4).open() as undisturbed:
            assert [line_of(batch).identity for batch in undisturbed] == story.seen


def test_two_servers_come_up_on_two_hosts_and_feed_a_trainer(story: Story) -> None:
    story.wait("clips of both", lambda: len(story.serving()) == 2)
    placed = story.up()
    assert {server["node"] for server in placed} == story.serving()
    assert [server["socket"] for server in placed] == [0, 0], "one a CPU socket of its host"


def test_a_host_whose_cable_is_pulled_is_replaced_and_changes_no_byte(story: Story) -> None:
    gone = story.up()[0]["node"]
    story.hosts[gone].pull_cable()
    story.wait("another in its place", lambda: gone not in {one["node"] for one in story.up()} and len(story.up()) == 2)
    story.wait("clips of the new one", lambda: len(story.serving()) == 3)
    story.hosts[gone].plug_in()
    story.wait("its old life is over", lambda: story.boxes.has_ended(story.hosts[gone]))
    story.boxes.join(story.hosts[gone])
    story.take(20)
    assert len(story.up()) == 2, "and no third"


def test_a_server_whose_process_is_killed_is_started_again(story: Story) -> None:
    before = story.up()
    subprocess.run(["kill", "-9", str(before[0]["pid"])], check=True)
    pids = {one["pid"] for one in before}
    story.wait("two again", lambda: len(story.up()) == 2 and {one["pid"] for one in story.up()} != pids)


def test_a_drain_fails_no_request(story: Story) -> None:
    story.take(10)
    failed, name = story.failed(), story.up()[0]["name"]
    draining = subprocess.Popen(
        [ray_python(), "-m", "framefeed.cli", "fleet", "drain", name, "--ray", story.boxes.address],
        env=story.boxes.environment,
        cwd=ROOT,
    )
    story.wait("its end", lambda: draining.poll() is not None)
    assert draining.returncode == 0
    assert story.failed() == failed
    assert name not in {one["name"] for one in story.up()}


def test_a_drained_server_s_place_stays_empty_until_the_fleet_is_scaled(story: Story, tmp_path: Path) -> None:
    """Beside an autoscaler too, whose run has what it takes."""
    (before,) = [one for one in story.boxes.status() or () if one["state"] == "drained"]
    calm = tmp_path / "calm.json"
    calm.write_text(json.dumps(json.loads(LOAD.read_text())[:2]))
    said, log = scale_by(story, calm, least=2)
    assert said == [1, 1], log
    assert before in (story.boxes.status() or ())
    assert len(story.up()) == 1
    done = story.boxes.fleet("scale", "1")
    assert done.returncode == 0, done.stderr
    assert [one["state"] for one in story.boxes.status() or ()] == ["up"]


def test_a_load_that_rises_and_falls_takes_the_fleet_from_one_to_three_and_back(story: Story) -> None:
    assert len(story.up()) == 1
    failed = story.failed()
    sizes, log = scale_by(story, LOAD, least=1)
    assert [size for at, size in enumerate(sizes) if at == 0 or size != sizes[at - 1]] == [1, 3, 1], log
    assert "3 servers wanted, were 1: starved: a rank waits" in log
    assert "1 servers wanted, were 3: not_needed: " in log
    assert story.failed() == failed


def test_the_data_path_does_not_notice_that_the_head_is_killed(story: Story) -> None:
    failed = story.failed()
    story.boxes.kill_head()
    assert story.boxes.status() is None
    story.take(60)
    assert story.failed() == failed
