"""Scores a run's weights, and their moving average, on held-out samples between two steps; it knows no data set's kind.

Every process of the run takes its share of the samples, none twice. Weights, optimizer, averages and what is random
stay as they are: a run that is scored has the bytes of one that is not. A stop ends a pass between two batches, and
what was not scored to its end is scored when the run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from framefeed.cli.stop_signals import Stopped
from framefeed_models.pixel_norm import PixelNorm
from framefeed_models.weights.checkpoint_folder import folder_name
from framefeed_models.weights.config_json import ModelConfig
from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.evaluate.collect import Collected, collect
from trainer_client.evaluate.eval_options import EvalRhythm
from trainer_client.evaluate.model_file import fingerprint
from trainer_client.evaluate.report import Report, Source, report_of, weights_said
from trainer_client.evaluate.score_files import ScoreFiles
from trainer_client.evaluate.score_metrics import ScoreMetrics
from trainer_client.evaluate.scorers import Scorer
from trainer_client.feed.batch import Batch
from trainer_client.feed.slots import Allocate
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.training.average import Average
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.loop import Stops
from trainer_client.training.meeting import Asks, Meeting
from trainer_client.training.precision import PrecisionName
from trainer_client.training.ranks import Ranks
from trainer_client.training.scoring import Scores
from trainer_client.views import Views

WEIGHTS, AVERAGE = "", "average"
SCORES = {WEIGHTS: "val", AVERAGE: "val_average"}
"""What scores are called by, before their own names, by what was scored."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvalSet:
    """What a run is scored by: samples, clips of them, how these travel, and what is made of what the model says."""

    dataset: AnnotatedDataset
    policy: ClipPolicy
    options: LoaderOptions
    allocate: Allocate
    scorer: Scorer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveModel:
    """What is scored: the live model, as it was configured and normalised, its moving average, and where it is."""

    model: nn.Module
    config: ModelConfig
    norm: PixelNorm
    average: Average
    ranks: Ranks
    device: torch.device
    precision: PrecisionName


class Evaluator:
    """Scores a run when that is due. `on_scores` are called with the scores on every rank, in turn."""

    def __init__(
        self, eval_set: EvalSet, live: LiveModel, *, rhythm: EvalRhythm, out: Path, metrics: ScoreMetrics
    ) -> None:
        self._eval_set, self._live, self._rhythm, self._out, self._metrics = eval_set, live, rhythm, out, metrics
        self._files = ScoreFiles(out, live.ranks)
        self.on_scores: list[Callable[[Scores], None]] = []

    def begin(self, *, after: int | None) -> None:
        """The run goes on after so many steps; None: it begins. A collective."""
        self._files.begin(after=after)

    def is_due(self, step: int) -> bool:
        """Whether the weights after `step` steps are to be scored, alike on all ranks."""
        return self._rhythm.is_due(step) and not self._files.has(step)

    def evaluate(self, step: int, *, meeting: Meeting, stops: Stops) -> None:
        """Score them. A collective; blocks until all clips were seen, each wait bounded by the loader, or until a stop.

        Raises what next(loader) raises, RankLost, and StorageFault for a report that cannot be written.
        """
        eval_set, live = self._eval_set, self._live
        live.model.eval()
        views = Views(eval_set.dataset, views=eval_set.policy.views)
        with ClipLoader(views, eval_set.policy, eval_set.options, allocate=eval_set.allocate) as loader:
            feed = _UntilStop(loader, meeting, stops)
            collected = collect(
                self._counted(feed),
                self._rows_of,
                samples=len(eval_set.dataset),
                views=eval_set.policy.views,
                ranks=live.ranks,
                device=live.device,
            )
            decoder = loader.state_dict()["decoder_fingerprint"]
        if not feed.stopped:
            source = Source(dataset=eval_set.dataset, policy=eval_set.policy, decoder=decoder)
            self._tell(step, self._reports(step, collected, source))

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._metrics.count(int(np.count_nonzero(batch.epochs == 0)))
            yield batch

    def _rows_of(self, batch: DeviceBatch) -> Tensor:
        """Rows of the weights, and beside them those of their average, if there is one."""
        rows = self._eval_set.scorer.rows_of(batch)
        if not self._live.average.averages:
            return rows
        with self._live.average.applied():
            return torch.cat([rows, self._eval_set.scorer.rows_of(batch)], dim=1)

    def _reports(self, step: int, collected: Collected, source: Source) -> dict[str, Report]:
        """By what they are of; on ranks beyond the first without scores."""
        average = self._live.average
        if not average.averages:
            return {WEIGHTS: self._report(step, collected, source, average=False)}
        own, averaged = np.array_split(collected.mean_NR, 2, axis=1)
        reports = {WEIGHTS: self._report(step, replace(collected, mean_NR=own), source, average=False)}
        with average.applied():
            reports[AVERAGE] = self._report(step, replace(collected, mean_NR=averaged), source, average=True)
        return reports

    @torch.no_grad()
    def _report(self, step: int, collected: Collected, source: Source, *, average: bool) -> Report:
        live, scorer = self._live, self._eval_set.scorer
        scores = scorer.score(collected, rank=live.ranks.rank)
        own = fingerprint(live.model, live.config, live.norm)
        weights = weights_said(self._out / folder_name(step), own, average=average, by=live.precision)
        return report_of(scorer.metric, scores, collected=collected, weights=weights, source=source)

    def _tell(self, step: int, reports: Mapping[str, Report]) -> None:
        values = {f"{SCORES[name]}/{score}": v for name, one in reports.items() for score, v in one.scores.items()}
        ranks, data = self._live.ranks, reports[WEIGHTS].data
        self._files.write(step, reports)
        self._metrics.show(values)
        scores = Scores(
            step=step,
            values=json.loads(ranks.first_says(json.dumps(values))),
            of=f"{data['fingerprint']} {data['videos']} {self._eval_set.policy.digest}",
            lines=tuple(f"step {step}  {SCORES[name]}: {report.line()}" for name, report in reports.items()),
        )
        for hear in self.on_scores:
            hear(scores)


class _UntilStop:
    """A loader's batches, until one rank is asked to stop: then all ranks end after the same batch."""

    def __init__(self, loader: ClipLoader, meeting: Meeting, stops: Stops) -> None:
        self._loader, self._meeting, self._stops = loader, meeting, stops
        self.stopped = False

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch: Batch | None = None
        try:
            with self._stops.interruptible():
                batch = next(self._loader, None)
        except Stopped:
            pass
        agreed = self._meeting.meet(Asks(stop=bool(self._stops.last)), stopping=lambda: bool(self._stops.last))
        self.stopped = self.stopped or agreed.stop
        if self.stopped or batch is None:
            raise StopIteration
        return batch
