"""A training session: the folder, signals, metrics, log and checkpoints around a loop; knows no task and no data.

OUT/run.json says what runs and where its metrics are, OUT/step_*.pt are its checkpoints, OUT/summary.json what it was,
OUT/tensorboard its curves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from prometheus_client import CollectorRegistry
from rich.console import Console

from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput, FramefeedError
from trainer_client.loader import ClipLoader
from trainer_client.training.checkpoints import Checkpoints
from trainer_client.training.loop import Ending, Limits, StepRecord, TrainLoop
from trainer_client.training.watch.train_log import TrainLog
from trainer_client.training.watch.train_metrics import TrainMetrics, metrics_page
from trainer_client.training.watch.train_summary import Summary

RUN_NAME = "run.json"


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What a recipe's user chooses about a run as such."""

    out: Path
    """Folder of the run: checkpoints, curves, summary."""
    steps: int = 10_000
    """Optimizer steps of the whole run; the learning rate's curve spans them."""
    max_seconds: float | None = None
    """End in good order after so many seconds of training, even if steps are left. Default: no limit."""
    seed: int = 0
    """All that is random follows from it: first weights, order, crops, flips, masks."""
    resume: bool = False
    """Go on after the newest checkpoint in --out, if there is one."""
    checkpoint_every: int = 500
    """Save after every so many steps; a run that ends saves as well."""
    keep_checkpoints: int = 3
    """Checkpoints that stay; older ones go."""
    log_every: int = 20
    """Steps between two lines of the log and two points of the curves."""
    metrics_port: int = 9556
    """Port of /metrics; 0 takes a free one (its address is in OUT/run.json)."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics; it has no authentication, so make it public only in a private network."""

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name)}, wanted at least 1")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise BadInput(f"--max-seconds is {self.max_seconds:g}, wanted more than 0")
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise BadInput(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, wanted 1: training uses one process as yet")


class Session:
    """Within its `with` a run may train: signals are taken, metrics served. In the main thread only."""

    def __init__(self, options: SessionOptions, *, config: Mapping[str, object]) -> None:
        """`config` are the options that decide which weights come out: a checkpoint of others is refused."""
        self.registry = CollectorRegistry()
        self._options = options
        self._config = config
        self._checkpoints = Checkpoints(options.out, config=config, keep=options.keep_checkpoints)
        self._stack = ExitStack()
        self._console = Console()

    def __enter__(self) -> Session:
        """Raises BadInput for a folder that cannot be used or holds another run, and a metrics port that is taken."""
        options = self._options
        latest = self._checkpoints.latest()
        if latest is not None and not options.resume:
            raise BadInput(
                f"--out {options.out} holds {latest.name} of an earlier run; wanted --resume or another --out"
            )
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--out {options.out} cannot be made: {error.strerror}") from None
        with ExitStack() as stack:
            self._stops = stack.enter_context(StopSignals(first_only=True))
            page = metrics_page(self.registry, host=options.metrics_host, port=options.metrics_port)
            self.metrics_url = stack.enter_context(page)
            self._write_run()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def train(self, loop: TrainLoop, loader: ClipLoader) -> Ending:
        """Resume if asked to, train, save, and write the summary; blocks until the run ends.

        A run that fails on purpose (a FramefeedError) saves where it stood before the error goes on.
        Raises BadInput for a checkpoint of another run, KeyboardInterrupt after a clean end on SIGINT, and what the
        loop raises.
        """
        if (latest := self._checkpoints.latest()) is not None:
            loop.load_state(self._checkpoints.load(latest))
            self._console.print(f"resuming after step {loop.steps_done}: {latest}", highlight=False, soft_wrap=True)
        options, summary = self._options, Summary()
        saver = _Saver(loop, self._checkpoints, every=options.checkpoint_every)
        ending = "failed"
        try:
            with TrainLog(
                options.out / "tensorboard",
                total_steps=options.steps,
                every=options.log_every,
                first_step=loop.steps_done,
                console=self._console,
            ) as log:
                loop.after_step += [summary.record, TrainMetrics(self.registry).record, log.record, saver.record]
                ended = loop.run(Limits(steps=options.steps, max_s=options.max_seconds), stops=self._stops)
            ending = ended.value
            saver.save()
        except FramefeedError as error:
            ending = f"failed: {error}"
            saver.save()
            raise
        finally:
            summary.write(options.out, loader.stats, ending=ending)
        if self._stops.last == "SIGINT":
            raise KeyboardInterrupt
        return ended

    def _write_run(self) -> None:
        body = {"pid": os.getpid(), "metrics_url": self.metrics_url, "config": dict(self._config)}
        part = self._options.out / (RUN_NAME + ".part")
        part.write_text(json.dumps(body, indent=1) + "\n")
        part.rename(self._options.out / RUN_NAME)


class _Saver:
    """Saves a loop's state when it is due, and never the same step twice."""

    def __init__(self, loop: TrainLoop, checkpoints: Checkpoints, *, every: int) -> None:
        self._loop, self._checkpoints, self._every = loop, checkpoints, every
        self._saved_step = loop.steps_done

    def record(self, record: StepRecord) -> None:
        if record.step % self._every == 0:
            self.save()

    def save(self) -> None:
        if self._loop.steps_done != self._saved_step:
            self._checkpoints.save(self._loop.state())
            self._saved_step = self._loop.steps_done
