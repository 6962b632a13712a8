"""A training session: the folder, signals, metrics, log and checkpoints around a loop; knows no task and no data.

OUT/run.json says what runs and where its metrics are, OUT/step_* are its checkpoints, OUT/summary.json what it was,
OUT/tensorboard its curves; OUT/skipped_steps.jsonl which clips were in steps that were not finite, OUT/changes.jsonl
what was changed when it was resumed. Ranks but the first write files of their own for what is theirs: run.rank1.json.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from prometheus_client import CollectorRegistry
from rich.console import Console

from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput, FramefeedError, StorageFault
from framefeed.folder_guard import warn_if_exposed
from framefeed.new_file import write_whole
from framefeed.new_folder import new_folder
from framefeed_models.pixel_norm import PixelNorm
from framefeed_models.weights.checkpoint_folder import folder_name
from framefeed_models.weights.saved_model import model_of
from trainer_client.loader import ClipLoader
from trainer_client.training.best_score import Metric
from trainer_client.training.checkpoints import Checkpoints, StoredRun, old_file
from trainer_client.training.data_states import other_data
from trainer_client.training.folder_lock import only_user
from trainer_client.training.loop import Ending, Limits, NonFiniteStep, TrainLoop
from trainer_client.training.processes import ranks_here
from trainer_client.training.ranks import Ranks
from trainer_client.training.saver import Rhythm, Saver
from trainer_client.training.scoring import Scores, Scoring
from trainer_client.training.tasks.task import InputsT
from trainer_client.training.watch.curves import Curves
from trainer_client.training.watch.energy import POWERCAP, EnergyMeter
from trainer_client.training.watch.health import Health
from trainer_client.training.watch.run_cost import cost_of
from trainer_client.training.watch.skipped_steps import SKIPPED_NAME, SkippedSteps
from trainer_client.training.watch.train_log import TrainLog
from trainer_client.training.watch.train_metrics import TrainMetrics, metrics_page, status_line
from trainer_client.training.watch.train_summary import SUMMARY_NAME, Summary

_log = logging.getLogger(__name__)

RUN_NAME = "run.json"
CHANGES_NAME = "changes.jsonl"
# What of all that decides the weights may be otherwise when a run goes on: the cures of steps that are not finite, and
# how long it is. Those in one pair are said one instead of the other.
CHANGE_TOGETHER = (("lr", "base_lr"), ("clip_norm",), ("steps", "epochs"))
MAY_CHANGE = frozenset(name for names in CHANGE_TOGETHER for name in names)


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What a recipe's user chooses about a run as such."""

    out: Path
    """Folder of the run: checkpoints, curves, summary."""
    max_seconds: float | None = None
    """End in good order after so many seconds of training, even if steps are left. Default: no limit."""
    resume: bool = False
    """Go on after the newest checkpoint in --out, if there is one. What decides the weights has to be as it was, but
    for --lr, --base-lr, --clip-norm and --steps or --epochs, which lengthen a run: the learning rate goes on along the
    longer curve. Those that are not given stay the run's own. How the run computes and is fed may be otherwise."""
    skip_step: tuple[int, ...] = ()
    """Steps, numbered from 0, that are not taken: what OUT/skipped_steps.jsonl names, say."""
    max_skipped: int = 10
    """So many steps may have a loss or gradients that are no numbers; they are left out, and one more ends the run."""
    checkpoint_every: int = 500
    """Save after every so many steps, while training goes on; a run that ends, or is stopped, saves as well."""
    checkpoint_minutes: float | None = None
    """Save after so many minutes as well. Default: by steps only."""
    keep_checkpoints: int = 3
    """Checkpoints that stay; older ones go."""
    keep_best: str | None = None
    """Keep the checkpoint with the best score as well: min:NAME or max:NAME of a score of held-out samples, as
    max:val/mAP, or of their moving average's, max:val_average/top1; or of the mean of a number of the steps before it:
    min:loss, or a part of the loss."""
    log_every: int = 20
    """Steps between two lines of the log and two points of the curves."""
    sheet_every: int = 500
    """Look at 16 clips every so many steps, off the training thread, for cuts, flicker and pictures that come again,
    and draw four: OUT/clips/step_N.png, .mp4 and .json, the last 20 looks. 0: never."""
    price_per_gpu_hour: float | None = None
    """What an hour of one GPU costs, for the summary, in any currency."""
    wandb: str | None = None
    """Project of Weights & Biases that gets the curves as well. Default: none; TensorBoard's are in --out."""
    metrics_port: int = 9556
    """Port of /metrics, of rank 0; the others have those behind it. 0 takes a free one (it is in OUT/run.json)."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics; it has no authentication, so make it public only in a private network."""

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name)}, wanted at least 1")
        if not 0 <= self.metrics_port < 1 << 16:
            raise BadInput(f"--metrics-port is {self.metrics_port}, wanted 0 to {(1 << 16) - 1}")
        if self.sheet_every < 0:
            raise BadInput(f"--sheet-every is {self.sheet_every}, wanted a number of steps, or 0 for never")
        price = self.price_per_gpu_hour
        if price is not None and not 0 <= price < 1e9:
            raise BadInput(f"--price-per-gpu-hour is {price:g}, wanted 0 or more")
        for name in ("max_seconds", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInput(f"--{name.replace('_', '-')} is {value:g}, wanted more than 0")
        if self.keep_best is not None:
            Metric.read(self.keep_best)
        if self.max_skipped < 0 or min(self.skip_step, default=0) < 0:
            seen = f"--max-skipped is {self.max_skipped} and --skip-step {self.skip_step}"
            raise BadInput(f"{seen}, wanted numbers of 0 or more")

    @property
    def rhythm(self) -> Rhythm:
        """When the run saves."""
        minutes = self.checkpoint_minutes
        return Rhythm(steps=self.checkpoint_every, seconds=None if minutes is None else 60 * minutes)

    def limits(self, steps: int) -> Limits:
        """Where a loop of so many steps in all ends."""
        return Limits(steps=steps, max_s=self.max_seconds, skips=self.max_skipped, pass_over=frozenset(self.skip_step))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """A run's options as its checkpoints keep them, in what JSON can say: `what` decides which weights come out, and a
    checkpoint of others is refused; `how` may be otherwise when it goes on, which is recorded. `steps` are the whole's,
    `pixels` how its clips are normalised.
    """

    what: Mapping[str, object]
    steps: int
    how: Mapping[str, object] = field(default_factory=dict)
    pixels: PixelNorm | None = None

    @property
    def said(self) -> dict[str, object]:
        """Both."""
        return {**self.what, **self.how}


class Session:
    """Within its `with` a run may train: signals are taken, metrics served. In the main thread only."""

    def __init__(self, options: SessionOptions, *, config: RunConfig, ranks: Ranks | None = None) -> None:
        self.registry = CollectorRegistry()
        self._options = options
        self._config = config
        self._ranks = ranks or Ranks()
        self._checkpoints = Checkpoints(
            options.out, config=config.said, keep=options.keep_checkpoints, may_change=MAY_CHANGE | config.how.keys()
        )
        self._stack = ExitStack()
        self._console = Console(quiet=self._ranks.rank > 0)
        self.on_begin: list[Callable[[], None]] = []
        """Called on rank 0 when nothing can refuse the run any more, before it changes anything: what is to lie in the
        folder beside run.json."""

    def __enter__(self) -> Session:
        """Raises BadInput for a folder that cannot be used, holds another run or is another process's, for checkpoints
        of which none is whole, and for a metrics port that is taken."""
        options, ranks = self._options, self._ranks
        with ExitStack() as stack:
            if ranks.rank == 0:
                self._check_folder()
                self._make_folder(stack)
                stack.enter_context(only_user(options.out))
                self._checkpoints.clear_leftovers()
            self._checkpoints.token = ranks.first_says(self._checkpoints.token)
            self._latest = self._checkpoints.newest_whole(ranks, tell=self.tell)
            self._stops = stack.enter_context(StopSignals(first_only=True))
            port = options.metrics_port and options.metrics_port + ranks.rank
            page = metrics_page(self.registry, host=options.metrics_host, port=port, ranks_here=ranks_here())
            self.metrics_url = stack.enter_context(page)
            self.tell(status_line(self.metrics_url))
            self._stack = stack.pop_all()
        return self

    @property
    def resumes(self) -> bool:
        """Whether `train` goes on after a checkpoint: first weights come to nothing then."""
        return self._latest is not None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    def train(self, loop: TrainLoop[InputsT], loader: ClipLoader, *, scoring: Scoring | None = None) -> Ending:
        """Resume if asked to, train, save, and write the summary; blocks until the run ends and is on storage.

        A run that fails on purpose (a FramefeedError) saves where it stood before the error goes on: with several ranks
        where all have seen it, as a step that is not finite, and alone always.
        Raises BadInput for a checkpoint of another run, KeyboardInterrupt after a clean end on SIGINT, and what the
        loop raises.
        """
        options, summary = self._options, Summary()
        stored = self._resumed(loop)
        if never := [step for step in options.skip_step if not loop.steps_done <= step < self._config.steps]:
            which, at = ", ".join(map(str, never)), f"goes on at step {loop.steps_done} of {self._config.steps}"
            self.tell(f"--skip-step {which} leaves nothing out: the run, numbered from 0, {at}")
        self._ranks.all_say("begins")  # a refused run leaves the folder's records as they are: no rank refuses any more
        if scoring is not None:
            scoring.begin(after=loop.steps_done if self._latest else None)
        self._write_records(loop, stored)
        if self._is_over(loop, scoring):
            return Ending.FINISHED
        best = stored.best if stored else None
        self._checkpoints.model = model_of(loop.model, pixels=self._config.pixels)
        metric = None if options.keep_best is None else Metric.read(options.keep_best)
        saver = Saver(loop, self._checkpoints, options.rhythm, metric=metric, best=best)
        loop.on_skipped.append(SkippedSteps(self._own(SKIPPED_NAME)).record)
        metrics = TrainMetrics(self.registry, rank=self._ranks.rank, on_gpu=loop.device.type == "cuda")
        meter = EnergyMeter(device=loop.device, packages=POWERCAP if ranks_here() else None)
        loop.on_record += [summary.record, saver.record, metrics.record, meter.record]
        ending = "failed"
        try:
            with ExitStack() as stack:
                if self._ranks.rank == 0:
                    curves = stack.enter_context(self._curves(loop.steps_done))
                    health = stack.enter_context(self._health(loop, loader, metrics))
                    loop.on_record.append(stack.enter_context(self._log(loop, curves, health)).record)
                    self._show(scoring, curves, summary)
                if scoring is not None:
                    scoring.on_scores.append(lambda s: saver.keep_best(s.step, s.values, of=s.of))
                limits = options.limits(self._config.steps)
                ended = loop.run(limits, stops=self._stops, saves=saver, evaluates=scoring)
            ending = ended.value
            saver.finish()
        except FramefeedError as error:
            failed_to_save = ending != "failed"
            ending = f"failed: {error}"
            if not failed_to_save and (self._ranks.world == 1 or isinstance(error, NonFiniteStep)):
                with _told_only():
                    saver.finish()
            raise
        finally:
            with _told_only() if ending.startswith("failed") else nullcontext():
                cost = self._cost(summary.ran_s, loop, meter)
                summary.write(self._own(SUMMARY_NAME), loader.stats, ending=ending, cost=cost)
        self._tell_stop(loop)
        if self._stops.last == "SIGINT":
            raise KeyboardInterrupt
        return ended

    def _is_over(self, loop: TrainLoop[InputsT], scoring: Scoring | None) -> bool:
        """Whether nothing is left to do of a run that resumes, which is told then."""
        done = loop.steps_done
        over = self.resumes and done == self._config.steps and not (scoring is not None and scoring.is_due(done))
        if over:
            self.tell(
                f"the run in {self._options.out} is finished: its {done} steps are done; more --steps lengthen it"
            )
        return over

    def _tell_stop(self, loop: TrainLoop[InputsT]) -> None:
        """Say where a run that was asked to stop stands, and how it goes on."""
        if self._stops.last:
            done, out = loop.steps_done, self._options.out
            saved = f"saved as {out / folder_name(done)}" if done else "nothing to save"
            said = f"stopped after step {done} of {self._config.steps}: {saved}"
            self.tell(f"{said}; the same command with --resume goes on")

    def _show(self, scoring: Scoring | None, curves: Curves, summary: Summary) -> None:
        """Have scores of held-out samples told, drawn and summed up."""

        def show(scores: Scores) -> None:
            for line in scores.lines:
                self.tell(line)
            curves.add(scores.values, step=scores.step)
            summary.scores = {"step": scores.step, **scores.values}

        if scoring is not None:
            scoring.on_scores.append(show)

    def _curves(self, first_step: int) -> Curves:
        options = self._options
        return Curves(options.out, first_step=first_step, project=options.wandb, config=self._config.said)

    def _health(self, loop: TrainLoop[InputsT], loader: ClipLoader, metrics: TrainMetrics) -> Health:
        options = self._options
        health = Health(options.out, sheet_every=options.sheet_every, metrics=metrics, waited_s=lambda: loader.waited_s)
        loop.on_record.append(health.record)
        loop.on_batch.append(health.see)
        return health

    def _cost(self, ran_s: float, loop: TrainLoop[InputsT], meter: EnergyMeter) -> dict[str, object]:
        gpus = self._ranks.world if loop.device.type == "cuda" else 0
        return cost_of(ran_s, gpus=gpus, price_per_gpu_hour=self._options.price_per_gpu_hour, meter=meter)

    def _log(self, loop: TrainLoop[InputsT], curves: Curves, health: Health) -> TrainLog:
        options = self._options
        return TrainLog(
            curves,
            total_steps=self._config.steps,
            every=options.log_every,
            first_step=loop.steps_done,
            console=self._console,
            beside=health,
        )

    def _resume(self, loop: TrainLoop[InputsT], path: Path) -> StoredRun:
        """Go on where the run stood. Raises BadInput for a checkpoint of another run."""
        stored, steps = self._checkpoints.load(path, self._ranks), self._config.steps
        if stored.step > steps:
            raise BadInput(f"--steps is {steps} and {path} is after step {stored.step}; wanted at least so many")
        if other := other_data(stored.data, loop.state().data):
            changes = f" ({stored.changes})" if stored.changes else ""
            raise BadInput(f"--resume: {path} is of a run on another data set: {other}{changes}; wanted its own")
        loop.load_state(stored)
        self.tell(f"resuming after step {loop.steps_done}: {path}{f'; {stored.changes}' if stored.changes else ''}")
        return stored

    def _resumed(self, loop: TrainLoop[InputsT]) -> StoredRun | None:
        """What the run goes on from, if there is anything."""
        if self._latest:
            return self._resume(loop, self._latest)
        if self._options.resume:
            self.tell(f"nothing to resume in {self._options.out}: begins at step 0")
        return None

    def _check_folder(self) -> None:
        options, earlier, old = self._options, self._checkpoints.earlier(), old_file(self._options.out)
        if earlier and not options.resume:
            raise BadInput(f"--out {options.out} holds {earlier} of an earlier run; wanted --resume or another --out")
        if old:
            raise BadInput(
                f"--out {options.out} holds {old}, a single-file checkpoint of an earlier framefeed, which is not "
                "read; wanted another --out, or the framefeed that wrote it"
            )

    def _make_folder(self, stack: ExitStack) -> None:
        """A run that is refused takes it away again, as long as nothing is in it."""
        out = self._options.out
        try:
            stack.enter_context(new_folder(out))
        except OSError as error:
            raise BadInput(f"--out {out} cannot be made: {error.strerror}") from None
        warn_if_exposed(out, what="--out", log=_log)

    def tell(self, line: str) -> None:
        """Say a line to whoever looks on, from rank 0 alone."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _own(self, name: str) -> Path:
        """This rank's file of that name: the first one's is plain."""
        stem, dot, ending = name.partition(".")
        return self._options.out / (f"{stem}.rank{self._ranks.rank}{dot}{ending}" if self._ranks.rank else name)

    def _write_records(self, loop: TrainLoop[InputsT], stored: StoredRun | None) -> None:
        """What the run is, and what is otherwise than it was; run.json last."""
        skips = list(self._options.skip_step)
        if self._ranks.rank == 0:
            for write in self.on_begin:
                write()
            if stored and (stored.changes or skips):
                line = {"after_step": loop.steps_done, "changes": stored.changes, "skip_steps": skips}
                with (self._options.out / CHANGES_NAME).open("a") as file:
                    file.write(json.dumps(line) + "\n")
        body = {"pid": os.getpid(), "metrics_url": self.metrics_url, "config": self._config.said}
        write_whole(self._own(RUN_NAME), json.dumps(body, indent=1).encode() + b"\n")


@contextmanager
def _told_only() -> Iterator[None]:
    """A fault of storage in it is told in the log, and does not bury the error that ended the run."""
    try:
        yield
    except StorageFault as fault:
        _log.error("%s", fault)
