"""A training session: the folder, signals, metrics, log and checkpoints around a loop; knows no task and no data.

OUT/run.json says what runs and where its metrics are, OUT/step_*.pt are its checkpoints, OUT/summary.json what it was,
OUT/tensorboard its curves; OUT/skipped_steps.jsonl which clips were in steps that were not finite, OUT/changes.jsonl
what was changed when it was resumed. Ranks but the first write files of their own for what is theirs: run.rank1.json.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic

from prometheus_client import CollectorRegistry
from rich.console import Console

from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput, FramefeedError, StorageFault
from framefeed.folder_guard import warn_if_exposed
from framefeed.new_file import write_whole
from trainer_client.loader import ClipLoader
from trainer_client.training.checkpoints import Checkpoints
from trainer_client.training.loop import Ending, Limits, TrainLoop
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.task import InputsT
from trainer_client.training.watch.skipped_steps import SKIPPED_NAME, SkippedSteps
from trainer_client.training.watch.train_log import TrainLog
from trainer_client.training.watch.train_metrics import TrainMetrics, metrics_page
from trainer_client.training.watch.train_summary import SUMMARY_NAME, Summary

_log = logging.getLogger(__name__)

RUN_NAME = "run.json"
CHANGES_NAME = "changes.jsonl"
# What a run may go on with otherwise than it began: cures of steps that are not finite, and how it computes.
MAY_CHANGE = frozenset({"lr", "base_lr", "clip_norm", "precision"})


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
    """Go on after the newest checkpoint in --out, if there is one; --lr, --base-lr, --clip-norm and --precision may be
    others."""
    skip_step: tuple[int, ...] = ()
    """Steps, numbered from 0, that are not taken: what OUT/skipped_steps.jsonl names, say."""
    max_skipped: int = 10
    """So many steps may have a loss or gradients that are no numbers; they are left out, and one more ends the run."""
    checkpoint_every: int = 500
    """Save after every so many steps; a run that ends saves as well."""
    keep_checkpoints: int = 3
    """Checkpoints that stay; older ones go."""
    log_every: int = 20
    """Steps between two lines of the log and two points of the curves."""
    metrics_port: int = 9556
    """Port of /metrics, of rank 0; the others have those behind it. 0 takes a free one (it is in OUT/run.json)."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics; it has no authentication, so make it public only in a private network."""

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name)}, wanted at least 1")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise BadInput(f"--max-seconds is {self.max_seconds:g}, wanted more than 0")
        if self.max_skipped < 0 or min(self.skip_step, default=0) < 0:
            seen = f"--max-skipped is {self.max_skipped} and --skip-step {self.skip_step}"
            raise BadInput(f"{seen}, wanted numbers of 0 or more")

    @property
    def limits(self) -> Limits:
        """Where the loop ends."""
        return Limits(
            steps=self.steps, max_s=self.max_seconds, skips=self.max_skipped, pass_over=frozenset(self.skip_step)
        )


class Session:
    """Within its `with` a run may train: signals are taken, metrics served. In the main thread only."""

    def __init__(self, options: SessionOptions, *, config: Mapping[str, object], ranks: Ranks | None = None) -> None:
        """`config` are the options that decide which weights come out: a checkpoint of others is refused."""
        self.registry = CollectorRegistry()
        self._options = options
        self._config = config
        self._ranks = ranks or Ranks()
        self._checkpoints = Checkpoints(
            options.out, config=config, keep=options.keep_checkpoints, may_change=MAY_CHANGE
        )
        self._stack = ExitStack()
        self._console = Console(quiet=self._ranks.rank > 0)

    def __enter__(self) -> Session:
        """Raises BadInput for a folder that cannot be used or holds another run, and a metrics port that is taken."""
        options, rank = self._options, self._ranks.rank
        if rank == 0:
            self._check_folder()
        self._latest = self._ranks.first_says(str(self._checkpoints.latest() or ""))
        with ExitStack() as stack:
            self._stops = stack.enter_context(StopSignals(first_only=True))
            port = options.metrics_port and options.metrics_port + rank
            page = metrics_page(self.registry, host=options.metrics_host, port=port)
            self.metrics_url = stack.enter_context(page)
            self._write_run()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def train(self, loop: TrainLoop[InputsT], loader: ClipLoader) -> Ending:
        """Resume if asked to, train, save, and write the summary; blocks until the run ends.

        A run that fails on purpose (a FramefeedError) saves where it stood before the error goes on, alone at least:
        with several ranks the others have not stopped there.
        Raises BadInput for a checkpoint of another run, KeyboardInterrupt after a clean end on SIGINT, and what the
        loop raises.
        """
        if self._latest:
            self._resume(loop)
        options, summary = self._options, Summary()
        saver = _Saver(loop, self._checkpoints, every=options.checkpoint_every, writes=self._ranks.rank == 0)
        loop.after_step.append(saver.save_if_due)
        loop.on_skipped.append(SkippedSteps(self._own(SKIPPED_NAME)).record)
        loop.on_record += [summary.record, TrainMetrics(self.registry, rank=self._ranks.rank).record]
        ending = "failed"
        try:
            with ExitStack() as stack:
                if self._ranks.rank == 0:
                    loop.on_record.append(stack.enter_context(self._log(loop)).record)
                ended = loop.run(options.limits, stops=self._stops)
            ending = ended.value
            saver.save()
        except FramefeedError as error:
            ending = f"failed: {error}"
            if self._ranks.world == 1:
                with _told_only():
                    saver.save()
            raise
        finally:
            with _told_only() if ending.startswith("failed") else nullcontext():
                summary.write(self._own(SUMMARY_NAME), loader.stats, ending=ending)
        if self._stops.last == "SIGINT":
            raise KeyboardInterrupt
        return ended

    def _log(self, loop: TrainLoop[InputsT]) -> TrainLog:
        options = self._options
        return TrainLog(
            options.out / "tensorboard",
            total_steps=options.steps,
            every=options.log_every,
            first_step=loop.steps_done,
            console=self._console,
        )

    def _resume(self, loop: TrainLoop[InputsT]) -> None:
        state, changes = self._checkpoints.load(Path(self._latest))
        loop.load_state(state)
        told = f"; {changes}" if changes else ""
        self._console.print(
            f"resuming after step {loop.steps_done}: {self._latest}{told}", highlight=False, soft_wrap=True
        )
        skips = list(self._options.skip_step)
        if self._ranks.rank == 0 and (changes or skips):
            line = {"after_step": loop.steps_done, "changes": changes, "skip_steps": skips}
            with (self._options.out / CHANGES_NAME).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _check_folder(self) -> None:
        options, latest = self._options, self._checkpoints.latest()
        if latest is not None and not options.resume:
            raise BadInput(
                f"--out {options.out} holds {latest.name} of an earlier run; wanted --resume or another --out"
            )
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--out {options.out} cannot be made: {error.strerror}") from None
        warn_if_exposed(options.out, what="--out", log=_log)

    def _own(self, name: str) -> Path:
        """This rank's file of that name: the first one's is plain."""
        stem, dot, ending = name.partition(".")
        return self._options.out / (f"{stem}.rank{self._ranks.rank}{dot}{ending}" if self._ranks.rank else name)

    def _write_run(self) -> None:
        body = {"pid": os.getpid(), "metrics_url": self.metrics_url, "config": dict(self._config)}
        write_whole(self._own(RUN_NAME), json.dumps(body, indent=1).encode() + b"\n")


@contextmanager
def _told_only() -> Iterator[None]:
    """A fault of storage in it is told in the log, and does not bury the error that ended the run."""
    try:
        yield
    except StorageFault as fault:
        _log.error("%s", fault)


class _Saver(Generic[InputsT]):
    """Saves a loop's state when it is due, and never the same step twice. All ranks make the state, one writes it."""

    def __init__(self, loop: TrainLoop[InputsT], checkpoints: Checkpoints, *, every: int, writes: bool) -> None:
        self._loop = loop
        self._checkpoints, self._every, self._writes = checkpoints, every, writes
        self._saved_step = loop.steps_done

    def save_if_due(self, step: int) -> None:
        if step % self._every == 0:
            self.save()

    def save(self) -> None:
        step = self._loop.steps_done
        if step != self._saved_step:
            state = self._loop.state()
            if self._writes:
                self._checkpoints.save(state)
            self._saved_step = step
