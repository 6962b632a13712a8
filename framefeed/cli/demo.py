"""The verb `demo`: real video through real processes to a trained model, while one of two servers is killed.

It runs what a user would type, `framefeed chunk`, two `framefeed serve` and `framefeed train mae`, and reads what they
publish: reports, announcements, metrics, summaries. It imports none of their packages.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from framefeed.cli.children import Child, Children, require_success
from framefeed.cli.demo_report import Numbers, parse_metrics, print_summary, why_ended
from framefeed.errors import BadInput, FramefeedError
from framefeed.manifest import MANIFEST_NAME

FRAMEFEED = (sys.executable, "-c", "from framefeed.cli.command import main; raise SystemExit(main())")
MARKER = "framefeed-demo.json"
_FOLDERS = ("videos", "root", "run", "logs")
_STEPS_PER_S = 16.0  # what two slow cores do; a faster machine ends before the time is up
_READY_S, _SLACK_S, _LOOK_S, _LINE_S = 60.0, 90.0, 0.25, 10.0
_TRAINING = {
    "--preset": "tiny",
    "--mask-ratio": "0.5",
    "--batch-clips": "4",
    "--lr": "1.5e-3",
    "--precision": "fp32",
    "--metrics-port": "0",
    "--log-every": "20",
    "--watchdog-s": "60",
}


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train for a minute on two cores while a server is killed.

    A small VideoMAE, on video that is made or yours; a contact sheet, curves and a summary show what came of it.
    """

    videos: Path | None = None
    """Folder of your videos. Default: three minutes of synthetic ones are made."""
    seconds: float = 60.0
    """Training time in seconds, at most; all else takes about half a minute."""
    out: Path = Path("framefeed-demo")
    """Folder for the contact sheet, the curves, the summary and the logs."""
    all_files: bool = False
    """With --videos: take files of every suffix, not only those of usual video suffixes."""
    follow_links: bool = False
    """With --videos: take files that links lead to outside of the folder too."""
    keep: bool = False
    """Keep the chunks, the synthetic videos and the checkpoints as well."""

    def run(self) -> None:
        """Run it. Raises FramefeedError if a process fails or the loss does not fall, BadInput for what cannot be used.

        However it ends, no process that it started is left.
        """
        if not 0 < self.seconds < math.inf:
            raise BadInput(f"--seconds is {self.seconds:g}, wanted more than 0")
        if self.videos is not None and not self.videos.is_dir():
            raise BadInput(f"--videos {self.videos} is not a folder; wanted one that holds videos")
        console = Console()
        _clear(self.out)
        with _stopped_by_signals(), Children(self.out / "logs") as children:
            self._make_root(children, console)
            servers = self._start_servers(children, console)
            trainer = self._start_trainer(children, servers)
            killed = _Watch(self.out / "run", steps=self._steps, seconds=self.seconds, console=console).follow(
                trainer, victim=servers[0]
            )
        body = json.loads((self.out / "run" / "summary.json").read_text())
        ended = why_ended(body, steps=self._steps, seconds=self.seconds)
        print_summary(console, body, chunks=self._chunk_report(), killed=killed, ended=ended)
        sheet = self.out / "run" / "contact_sheet.png"
        console.print(f"contact sheet: {sheet}\ncurves: tensorboard --logdir {self.out / 'run'}", highlight=False)
        if not self.keep:
            _drop_bulk(self.out)
        if not sheet.exists() or not body["loss_last"] < body["loss_first"]:
            raise FramefeedError(f"the loss did not fall: {body['loss_first']:.4f} to {body['loss_last']:.4f}")

    @property
    def _source_flags(self) -> dict[str, bool]:
        return {"--all-files": self.all_files, "--follow-links": self.follow_links}

    @property
    def _steps(self) -> int:
        return max(round(self.seconds * _STEPS_PER_S), 20)

    def _make_root(self, children: Children, console: Console) -> None:
        source = self.videos or self.out / "videos"
        if self.videos is None:
            console.print("making three minutes of video")
            children.run("synthetic", (sys.executable, "-m", "decode_server.chunking.synthetic", str(source)))
        console.print(f"chunking {source}", markup=False, highlight=False)
        options = ("--out", str(self.out / "root"), "--report", str(self.out / "videos.jsonl"))
        flags = [flag for flag, is_set in self._source_flags.items() if is_set]
        chunk = children.start("chunk", (*FRAMEFEED, "chunk", str(source), *options, *flags), quiet=False)
        code = None
        while code is None:
            code = chunk.wait(60.0)
        if not (self.out / "root" / MANIFEST_NAME).exists():  # what is not refused can be trained on
            require_success(chunk, code)

    def _chunk_report(self) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = json.loads((self.out / "root" / "framefeed.chunks.json").read_text())["videos"]
        return rows

    def _start_servers(self, children: Children, console: Console) -> list[_Server]:
        """Two servers, ready. Raises FramefeedError if one fails or is not ready in a minute."""
        started = []
        for name in ("server-1", "server-2"):
            announce = self.out / "logs" / f"{name}.json"
            options = ("--bind", "tcp://127.0.0.1:0", "--metrics-port", "0", "--workers", "1", "--threads", "1")
            command = (
                *FRAMEFEED,
                "serve",
                str(self.out / "root"),
                *options,
                "--fronts",
                "1",
                "--announce",
                str(announce),
            )
            started.append((children.start(name, command), announce))
        servers = [_Server(child=child, endpoint=_endpoint(_await(child, announce))) for child, announce in started]
        console.print(f"decode servers: {', '.join(server.endpoint for server in servers)}", highlight=False)
        return servers

    def _start_trainer(self, children: Children, servers: list[_Server]) -> Child:
        threads = max(len(os.sched_getaffinity(0)) // 2, 1)  # servers share the cores: with 2 on 2 it is no faster
        options = {
            **_TRAINING,
            "--out": str(self.out / "run"),
            "--steps": str(self._steps),
            "--max-seconds": f"{self.seconds:g}",
            "--threads": str(threads),
        }
        flags = [word for option in options.items() for word in option]
        urls = (server.endpoint for server in servers)
        return children.start(
            "trainer", (*FRAMEFEED, "train", "mae", str(self.out / "root"), *flags, "--servers", *urls)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    child: Child
    endpoint: str


class _Watch:
    """Follows the trainer by its metrics, shows them, and kills a server half-way."""

    def __init__(self, run: Path, *, steps: int, seconds: float, console: Console) -> None:
        self._run, self._steps, self._seconds, self._console = run, steps, seconds, console
        columns = (TextColumn("training"), BarColumn(), TextColumn("{task.fields[now]}"))
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=1.0, now="starting")
        self._line_due_s = 0.0

    def follow(self, trainer: Child, *, victim: _Server) -> str:
        """Wait for the trainer's end. Returns what was killed and when, empty if it ended before half of its time.

        Raises FramefeedError if it fails, or has not ended long after its time.
        """
        run = _await(trainer, self._run / "run.json")
        began_s, killed = time.monotonic(), ""
        first_step_s = None
        with self._bar:
            while (code := trainer.wait(_LOOK_S)) is None:
                ran_s = time.monotonic() - began_s
                if ran_s > self._seconds + _SLACK_S:
                    raise FramefeedError(f"the trainer still runs after {ran_s:.0f} s; {trainer.last_line()}")
                now = _metrics(str(run["metrics_url"]))
                if not now.is_training:
                    continue
                first_step_s = ran_s if first_step_s is None else first_step_s
                share = max(now.steps / self._steps, (ran_s - first_step_s) / self._seconds)
                if share >= 0.5 and not killed:
                    victim.child.kill()
                    killed = f"{victim.endpoint} by SIGKILL after step {now.steps:.0f}, {ran_s - first_step_s:.0f} s"
                    self._console.print(f"killed {killed}", highlight=False)
                self._show(now, share)
        require_success(trainer, code)
        return killed

    def _show(self, now: Numbers, share: float) -> None:
        said = (
            f"step {now.steps:.0f}/{self._steps}  loss {now.loss:.4f}  {now.clips:.0f} clips  servers up {now.up:.0f}"
        )
        self._bar.update(self._task, completed=min(share, 1.0), now=said)
        if not self._console.is_terminal and time.monotonic() >= self._line_due_s:
            self._line_due_s = time.monotonic() + _LINE_S
            self._console.print(said, highlight=False)


def _await(child: Child, file: Path) -> dict[str, object]:
    """What a child writes to `file` once it is ready. Raises FramefeedError if it ends or a minute passes before."""
    until_s = time.monotonic() + _READY_S
    while not file.exists():
        code = child.wait(0.05)
        if code is not None:
            require_success(child, code or 1)
        if time.monotonic() > until_s:
            raise FramefeedError(
                f"{child.name} is not ready after {_READY_S:g} s: {child.last_line()} (see {child.log})"
            )
    body: dict[str, object] = json.loads(file.read_text())
    return body


def _endpoint(announced: dict[str, object]) -> str:
    return cast(list[str], announced["endpoints"])[0]


def _metrics(url: str) -> Numbers:
    """The trainer's metrics; all zero while it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as page:  # noqa: S310 - the address is the trainer's own
            return parse_metrics(page.read().decode())
    except OSError:
        return Numbers()


def _clear(out: Path) -> None:
    """Make the folder, without what an earlier demo left in it. Raises BadInput if it is not a demo's."""
    try:
        if out.exists() and not (out / MARKER).exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadInput(f"--out {out} exists and is not of a demo; wanted a new or empty folder")
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).write_text(json.dumps({"framefeed_demo": 1}) + "\n")
    except OSError as error:
        raise BadInput(f"--out {out} cannot be used: {error.strerror}") from None
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def _drop_bulk(out: Path) -> None:
    for name in ("videos", "root"):
        shutil.rmtree(out / name, ignore_errors=True)
    for checkpoint in (out / "run").glob("step_*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that children are ended."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
