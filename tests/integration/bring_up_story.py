"""What is seen while a composition is brought up, disturbed, watched and stopped: told once, for tests to judge.

It asserts nothing. test_bring_up.py says what has to have been seen.
"""

from __future__ import annotations

import base64
import calendar
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import docker
import promql_parser
import safetensors.torch
import yaml
from docker.models.containers import Container

from deploy.grafana.dashboards import BOARDS
from deploy.grafana.panel import SOURCE_UID
from deploy.grafana.preview import Window, committed, draw
from framefeed.grace import STOP_GRACE_S
from tests.integration.composition import OPEN, SERVER_SERVICES, Composition, address, file_of
from tests.integration.engine import DECODE, ROOT, TRAIN

EVERY_STEPS = 20
PASSWORD = "a-password-that-no-image-has-seen"
_COMPARES = {">", "<", "==", "!=", ">=", "<=", "and", "or", "unless"}


@dataclass
class Story:
    """What was seen, in the order in which it happened."""

    ready_s: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    affinity: dict[str, set[str]] = field(default_factory=dict)
    processes: list[dict[str, str]] = field(default_factory=list)
    writable_roots: list[str] = field(default_factory=list)
    first_fed_by: set[str] = field(default_factory=set)
    all_servers: set[str] = field(default_factory=set)
    targets: dict[str, set[str]] = field(default_factory=dict)
    fed_by: set[str] = field(default_factory=set)
    trainer_starts: set[tuple[str, str, int]] = field(default_factory=set)
    steps_without: int = 0
    said_at_stop: list[str] = field(default_factory=list)
    lost_by_drain: float = 0.0
    drains: dict[str, dict[str, float]] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    down_s: float = 0.0
    queries: int = 0
    queries_without_data: set[str] = field(default_factory=set)
    queries_with_nan: list[str] = field(default_factory=list)
    fired: dict[str, set[str]] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    panels_without_data: set[str] = field(default_factory=set)
    took_s: dict[str, float] = field(default_factory=dict)
    secrets_seen_in: list[str] = field(default_factory=list)
    published: set[str] = field(default_factory=set)
    fronts: set[str] = field(default_factory=set)
    fronts_watched: dict[str, set[str]] = field(default_factory=dict)
    without_grafana: str = ""
    grafana: dict[str, str] = field(default_factory=dict)
    step: int = 0
    began_s: float = 0.0
    state: Any = None
    calm_state: Any = None
    calm_alerts: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long something takes, and say so at once: what is tried longest is known if the story ends there."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.took_s[what] = time.monotonic() - began_s
            print(f"{what}: {self.took_s[what]:.1f} s", flush=True)


def tell_servers(told: Story, up: Composition) -> None:
    """Two servers on a machine that does nothing else: from the start of their containers until /readyz is 200."""
    up.compose("up", "--detach", *SERVER_SERVICES[:2])
    unready = {server.name: server for server in up.servers}

    def all_ready() -> bool:
        for name, server in list(unready.items()):
            with contextlib.suppress(OSError):
                up.get(f"{address(server)}:9555", "readyz")
                told.ready_s[name] = time.time() - unix_s(server.attrs["State"]["StartedAt"])
                del unready[name]
        return not unready

    up.wait("both servers are ready", all_ready)


def tell_start(told: Story, up: Composition) -> None:
    told.began_s = time.time()
    tell_containers(told, up)
    up.train(5)
    up.wait("both servers feed it", lambda: len(up.fed_by()) == 2)
    told.first_fed_by = up.fed_by()
    told.trainer_starts.add(started(up))
    for server in up.servers:
        told.affinity[server.name] = {
            line.split()[1]
            for process in server.top()["Processes"]
            for thread in Path(f"/proc/{process[1]}/task").glob("*/status")
            for line in thread.read_text().splitlines()
            if line.startswith("Cpus_allowed_list")
        }


def tell_containers(told: Story, up: Composition) -> None:
    """What the kernel says of each process in them, and whether their roots can be written."""
    for container in (*up.servers, up.trainer, *up.containers("prometheus")):
        for process in container.top()["Processes"]:
            with contextlib.suppress(OSError):  # a probe that has ended meanwhile
                lines = Path(f"/proc/{process[1]}/status").read_text().splitlines()
                told.processes.append(dict(line.split(":\t", 1) for line in lines if ":\t" in line))
        if container.exec_run(["sh", "-c", "echo > /written"]).exit_code == 0:
            told.writable_roots.append(container.name)


def tell_scaling(told: Story, up: Composition) -> None:
    up.compose(
        "up", "--detach", "--wait", "--no-recreate", "--scale", "decode-s0=2", "--scale", "decode-s1=2",
        "decode-s0", "decode-s1",
    )  # fmt: skip
    told.all_servers = {address(server) for server in up.servers}
    up.wait("all four are targets", lambda: hosts(up.targets().get("decode", set())) == told.all_servers)
    up.wait("all four feed it", lambda: hosts(up.fed_by()) == told.all_servers)
    up.wait("the trainer is a target", lambda: "trainer" in up.targets())
    told.targets, told.fed_by = {job: hosts(at) for job, at in up.targets().items()}, hosts(up.fed_by())
    for container in (*up.servers, up.trainer):
        stats = container.stats(stream=False)["memory_stats"]
        told.memory_mib[container.name] = (stats["usage"] - stats["stats"].get("total_inactive_file", 0)) / 2**20


def tell_fronts(told: Story, up: Composition) -> None:
    """One container more that is a box of two fronts: who watches both, told by nobody but the trainer."""
    up.compose("up", "--detach", "--wait", "--no-recreate", "decode-box")
    box = address(up.servers[-1])
    told.fronts = {f"{address(server)}:9555" for server in up.servers if server.status == "running"} | {f"{box}:9556"}
    up.wait("both fronts feed it", lambda: len([url for url in up.fed_by() if hosts({url}) == {box}]) == 2)
    trainer = f"{address(up.trainer)}:9556"
    watchers: dict[str, Callable[[], set[str]]] = {
        "Prometheus": lambda: up.targets()["decode"],
        "status page": lambda: pages_of(up, json.loads(up.get(trainer, "status.json"))),
        "top": lambda: pages_of(up, json.loads(top(trainer))),
    }
    for who, look in watchers.items():
        with contextlib.suppress(AssertionError):  # what it saw last is told
            up.wait(f"{who} sees every front", lambda look=look: told.fronts <= look(), patience_s=120)
        told.fronts_watched[who] = look()


def pages_of(up: Composition, said: Any) -> set[str]:
    """HOST:PORT of the metrics of the servers whose own pages something has read, as it names servers by addresses."""
    read = {server["name"] for server in said["servers"] if server["paged"]}
    return {
        labels["page"]
        for (name, has), _ in up.page(up.trainer).items()
        if name == "framefeed_client_server_page_info" and (labels := dict(has))["server"] in read
    }


def top(trainer: str) -> str:
    """What `framefeed top` says, given the trainer's page alone."""
    command = [sys.executable, "-m", "framefeed.cli", "top", trainer, "--json", "--every-s", "1"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def tell_faults(told: Story, up: Composition) -> None:
    before = up.steps
    up.servers[0].kill()
    up.train(20)
    up.pause(up.servers[-1])
    up.train(60)
    told.steps_without = up.steps - before
    told.fired["one server hangs"] = up.firing("FramefeedServerGone")
    up.servers[-1].unpause()
    told.step = (up.steps // EVERY_STEPS + 1) * EVERY_STEPS
    up.wait("a checkpoint after that", lambda: up.steps > told.step)
    told.trainer_starts.add(started(up))
    told.state = loaded(up.trainer, f"/runs/disturbed/step_{told.step:09d}")


def tell_alerts(told: Story, up: Composition) -> None:
    """Worse faults than a run of which the weights are compared should wait for."""
    running = [server for server in up.servers if server.status == "running"]
    for server in running:
        up.pause(server)
    told.fired["all servers hang"] = up.firing("FramefeedStarving") | up.firing("FramefeedTrainerSilent")
    for server in running:
        server.unpause()
    up.pause(up.trainer)
    told.fired["the trainer hangs"] = up.firing("FramefeedTrainerGone")
    up.trainer.unpause()
    up.train(10)
    told.trainer_starts.add(started(up))


def tell_panels(told: Story, up: Composition) -> None:
    """Every expression of a panel or a rule and every side of an alert, on this Prometheus, after this traffic."""
    panels = {expression for board in BOARDS for panel in board.panels for expression, _ in panel.queries}
    expressions = {expression.replace("$__rate_interval", "1m") for expression in panels}
    for name in ("rules.yml", "alerts.yml"):
        groups = yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text())["groups"]
        for rule in (rule for group in groups for rule in group["rules"]):
            expressions |= {rule["record"]} if "record" in rule else compared(rule["expr"])
    up.wait("a minute of rates", lambda: up.prometheus("query", query="up offset 1m")["result"])
    told.queries = len(expressions)
    for expression in sorted(expressions):
        result = up.prometheus("query", query=expression)["result"]
        if not result:
            told.queries_without_data.add(expression)
        if any(series["value"][1] == "NaN" for series in result):
            told.queries_with_nan.append(f"{expression} gives {result}")
    end_s = time.time()
    window = Window(start_s=max(told.began_s, end_s - 120), end_s=end_s)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(os.environ.get("FRAMEFEED_PREVIEWS") or scratch)
        for board in BOARDS:
            path = out / f"{board.uid}.png"
            figure = draw(committed(board.uid), window.ask(f"http://127.0.0.1:{up.env['PROMETHEUS_PORT']}"), window)
            figure.savefig(path)
            without = [axes for axes in figure.axes if any(text.get_text() == "No data" for text in axes.texts)]
            told.panels_without_data |= {axes.get_title(loc="left") for axes in without}
            told.pictures[board.uid] = path.stat().st_size


def tell_grafana(told: Story, up: Composition) -> None:
    """What a real Grafana says of its data source and dashboards; why there is none, where no image can be had."""
    image = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]["grafana"]["image"]
    name = image.removeprefix("${GRAFANA_IMAGE:-").removesuffix("}")
    try:
        if not up.client.images.list(name):
            up.client.images.pull(name)
    except docker.errors.APIError as error:
        told.without_grafana = f"{name} cannot be had: {error.explanation}"
        return
    up.compose("up", "--detach", "grafana")

    def ask(path: str) -> Any:
        url = f"http://127.0.0.1:{up.env['GRAFANA_PORT']}/api/{path}"
        login = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        with OPEN(urllib.request.Request(url, headers={"Authorization": f"Basic {login}"}), timeout=10) as answer:
            return json.load(answer)

    up.wait("Grafana's database", lambda: ask("health")["database"] == "ok")
    told.grafana["data source"] = ask(f"datasources/uid/{SOURCE_UID}/health")["status"]
    for board in BOARDS:
        found = ask(f"dashboards/uid/{board.uid}")
        told.grafana[board.uid] = (
            f"{len(found['dashboard']['panels'])} panels, provisioned {found['meta']['provisioned']}"
        )


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


def tell_end(told: Story, up: Composition) -> None:
    # One server while clips are asked of it: what it was asked for comes.
    draining = up.servers[1]
    url = f"tcp://{address(draining)}:5555"
    gone = address(draining)
    lost = up.total(up.trainer, "framefeed_client_requests_total", server=url, outcome="server_lost")
    with seen_draining(up, [gone]) as seen:
        draining.stop(timeout=STOP_GRACE_S)
    up.train(10)
    after = up.total(up.trainer, "framefeed_client_requests_total", server=url, outcome="server_lost")
    told.lost_by_drain = after - lost
    draining.reload()
    told.exits[draining.name] = draining.attrs["State"]["ExitCode"]
    told.said_at_stop.append(draining.logs(tail=20).decode())
    told.drains[draining.name] = drain_of(up, gone, seen)
    running = {c.id: c for c in (*up.servers, up.trainer, *up.containers("prometheus")) if c.status == "running"}
    servers = [container for container in running.values() if "decode" in container.name]
    addresses = {server.name: address(server) for server in servers}
    since, began_s = int(time.time()), time.monotonic()
    with seen_draining(up, addresses.values()) as seen:
        up.compose("stop", *SERVER_SERVICES, "trainer")
    told.drains |= {name: drain_of(up, at, seen) for name, at in addresses.items()}
    up.compose("stop")
    told.down_s = time.monotonic() - began_s
    for container in running.values():
        container.reload()
        told.exits[container.name] = container.attrs["State"]["ExitCode"]
    told.said_at_stop += [server.logs(since=since).decode() for server in servers]
    up.compose("down")


@contextlib.contextmanager
def seen_draining(up: Composition, addresses: Iterable[str]) -> Iterator[set[str]]:
    """The addresses of servers whose pages say meanwhile that they drain: one with little to do is done between two
    scrapes of Prometheus.
    """
    seen: set[str] = set()
    over = threading.Event()

    def read(at: str) -> None:
        while at not in seen and not over.wait(0.01):
            with contextlib.suppress(OSError, HTTPException):
                if b'framefeed_server_state{framefeed_server_state="draining"} 1' in up.get(f"{at}:9555", "metrics"):
                    seen.add(at)

    with ThreadPoolExecutor() as pool:
        for at in addresses:
            pool.submit(read, at)
        try:
            yield seen
        finally:
            over.set()


def drain_of(up: Composition, at: str, seen: set[str]) -> dict[str, float]:
    """A server's counters while it drained, as Prometheus saw them last; `seen` are those that said so themselves."""
    of = f'instance="{at}:9555"'
    asked = {
        "draining": f'max_over_time(framefeed_server_state{{framefeed_server_state="draining", {of}}}[5m])',
        "answered": f"sum(last_over_time(framefeed_server_requests_total{{{of}}}[5m]))",
        "lost": f"last_over_time(instance:framefeed_server_lost_requests:sum{{{of}}}[5m])",
    }
    told = {name: value_of(up.prometheus("query", query=query)["result"]) for name, query in asked.items()}
    return told | ({"draining": 1.0} if at in seen else {})


def value_of(result: list[dict[str, Any]]) -> float:
    """The one value of an answer of Prometheus; NaN if there is none."""
    return float(result[0]["value"][1]) if result else float("nan")


def print_story(told: Story, engine: docker.DockerClient) -> None:
    sizes = {tag: engine.images.get(tag).attrs["Size"] / 1e6 for tag in ("framefeed-base:bookworm", DECODE, TRAIN)}
    print("\nimages (MB):", {tag: round(size) for tag, size in sizes.items()})
    print("/readyz after (s):", {name: round(ready_s, 2) for name, ready_s in told.ready_s.items()})
    print("memory (MiB):", {name: round(mib) for name, mib in told.memory_mib.items()})
    print("took (s):", {name: round(took_s, 1) for name, took_s in told.took_s.items()})
    print(f"stopped in {told.down_s:.1f} s, compared after {told.step} steps")


def started(up: Composition) -> tuple[str, str, int]:
    trainer = up.trainer
    return trainer.id, trainer.attrs["State"]["StartedAt"], trainer.attrs["RestartCount"]


def unix_s(stamp: str) -> float:
    """An engine's time, 2026-01-31T12:34:56.789Z."""
    clock, _, fraction = stamp.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(clock, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction}")


def hosts(urls: set[str]) -> set[str]:
    return {url.rpartition("//")[2].rpartition(":")[0] for url in urls}


def loaded(trainer: Container, checkpoint: str) -> Any:
    """The tensors of a checkpoint, and what its run and its data were."""
    header = json.loads(file_of(trainer, f"{checkpoint}/checkpoint.json"))
    part = json.loads(file_of(trainer, f"{checkpoint}/part_00000.json"))
    tensors = safetensors.torch.load(file_of(trainer, f"{checkpoint}/part_00000.safetensors"))
    return {"config": header["config"], "step": header["step"], "data": part["data"], "tensors": tensors}


def compared(alert: str) -> set[str]:
    """What an alert compares: the sides of its comparisons that are no numbers."""

    def sides(expression: Any) -> set[str]:
        if isinstance(expression, promql_parser.BinaryExpr) and str(expression.op) in _COMPARES:
            return sides(expression.lhs) | sides(expression.rhs)
        return set() if isinstance(expression, promql_parser.NumberLiteral) else {str(expression)}

    return sides(promql_parser.parse(alert))
