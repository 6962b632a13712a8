"""A small trainer process: a ClipLoader, a step that takes some time, and a log of what each batch was.

`python -m tests.chaos.trainer PLAN`: the first line on stdout is the address of its /metrics, the last its counts.
After each batch it appends a line to the log, then saves the loader's state; started again it goes on from there.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server

from framefeed.crops import RandomResizedCrop
from framefeed.manifest import read_manifest
from framefeed.sampling import Segments
from tests.chaos.batch_log import Line, Pauses, line_of
from tests.integration.serving import PATIENCE_S
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import VideoWindows
from trainer_client.transports.credentials import Credentials


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the process does: `loader` are LoaderOptions, `credentials` files of its Credentials, `step_s` the time of a
    step, `folder` takes log and state.
    """

    root: str
    folder: str
    loader: dict[str, Any]
    credentials: dict[str, str] = dataclasses.field(default_factory=dict)
    step_s: float = 0.0
    side_px: int = 32
    frames: int = 4
    idle_after: int | None = None  # after this step it reads nothing for idle_s
    idle_s: float = 0.0

    def open(self, registry: CollectorRegistry | None = None) -> ClipLoader:
        """The loader, for this process or another one."""
        policy = ClipPolicy(
            sampling=Segments(frames=self.frames, jitter=True),
            crop=RandomResizedCrop(scale=(0.6, 1.0)),
            width_px=self.side_px,
            height_px=self.side_px,
            hflip_probability=0.5,
        )
        dataset = VideoWindows(read_manifest(Path(self.root)), window_s=1.0)
        shown = Credentials(**{name: Path(path) for name, path in self.credentials.items()})
        options = LoaderOptions(**self.loader, credentials=shown)
        return ClipLoader(dataset, policy, options, registry=registry)


def train(plan: Plan) -> None:
    """Be the trainer."""
    folder = Path(plan.folder)
    state, registry, pauses = folder / "state.json", CollectorRegistry(), Pauses()
    with plan.open(registry) as loader, (folder / "log.jsonl").open("a") as log:
        if state.exists():
            loader.load_state_dict(json.loads(state.read_text()))
        server, _ = start_http_server(0, addr="127.0.0.1", registry=registry)
        print(f"http://127.0.0.1:{server.server_port}/metrics", flush=True)
        while True:
            began_s = time.monotonic()
            batch = next(loader, None)
            if batch is None:
                break
            line = line_of(batch, wait_s=time.monotonic() - began_s, pause_s=pauses.take_s())
            log.write(json.dumps(dataclasses.asdict(line)) + "\n")
            log.flush()
            part = state.with_suffix(".part")
            part.write_text(json.dumps(loader.state_dict()))
            part.rename(state)
            time.sleep(plan.idle_s if batch.step == plan.idle_after else plan.step_s)
        stats = loader.stats
    print(
        json.dumps(
            {"conserved": stats.conserved, "used": stats.used, "dropped": dict(stats.dropped), "overdue": stats.overdue}
        ),
        flush=True,
    )


class Trainer:
    """The process; within `with` it runs, after it it is gone."""

    def __init__(self, plan: Plan) -> None:
        self.folder = Path(plan.folder)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "plan.json").write_text(json.dumps(dataclasses.asdict(plan)))
        with (self.folder / "stderr").open("a") as stderr:
            command = [sys.executable, "-m", "tests.chaos.trainer", self.folder / "plan.json"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert self.process.stdout is not None
        self.metrics_url = self.process.stdout.readline().strip()
        assert self.metrics_url, self.said()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)
        if kind is not None:
            print(self.said())

    def said(self) -> str:
        """What it wrote to stderr."""
        return (self.folder / "stderr").read_text()

    def lines(self) -> list[Line]:
        """Its log so far."""
        return self.log_of(self.folder)

    @staticmethod
    def log_of(folder: Path) -> list[Line]:
        """The log in a plan's folder; a half line, of a process that was killed, is none."""
        path = folder / "log.jsonl"
        whole = path.read_text().split("\n")[:-1] if path.exists() else []
        return [Line(**json.loads(line)) for line in whole]

    def finish(self, *, within_s: float) -> dict[str, Any]:
        """Wait for its end, in good order, and return its counts."""
        said = self.process.communicate(timeout=within_s)[0]
        assert self.process.returncode == 0, self.said()
        counts: dict[str, Any] = json.loads(said)
        return counts


if __name__ == "__main__":
    train(Plan(**json.loads(Path(sys.argv[1]).read_text())))
