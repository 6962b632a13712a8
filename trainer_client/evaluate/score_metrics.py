"""A run's evaluations in Prometheus form; it knows names and numbers, not what they are of."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge


class ScoreMetrics:
    """Clips of held-out samples that were scored, and the newest value of each score, in a run's registry."""

    def __init__(self, registry: CollectorRegistry, *, rank: int = 0) -> None:
        text = "Clips of held-out samples that this process has scored."
        clips = Counter("framefeed_trainer_evaluated_clips", text, ["rank"], registry=registry)
        self._clips, self._rank = clips.labels(str(rank)), str(rank)
        text = "Scores of the last evaluation; val is of the weights, val_average of their moving average."
        self._scores = Gauge("framefeed_trainer_score", text, ["rank", "score"], registry=registry)

    def count(self, clips: int) -> None:
        """Count clips that were scored."""
        self._clips.inc(clips)

    def show(self, scores: Mapping[str, float]) -> None:
        """Show an evaluation's scores in place of those before."""
        for name, value in scores.items():
            self._scores.labels(self._rank, name).set(value)
