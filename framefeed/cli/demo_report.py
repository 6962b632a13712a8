"""What the demo tells: the trainer's metrics in a line, its summary as a table; knows no processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A few of the trainer's metrics: steps and clips so far, the last loss, servers that are up."""

    steps: float = 0.0
    clips: float = 0.0
    loss: float = 0.0
    up: float = 0.0

    @property
    def is_training(self) -> bool:
        """Whether there are steps and a feed: before the first, and while a run that has ended saves, there is none,
        and no server is up by these numbers."""
        return self.steps > 0 and self.clips > 0


_CAUSES = 3  # of waiting that are named, the largest ones
_METRICS = {
    "framefeed_trainer_steps_total": "steps",
    "framefeed_trainer_clips_total": "clips",
    "framefeed_trainer_loss": "loss",
    "framefeed_client_server_up": "up",
}


def parse_metrics(text: str) -> Numbers:
    """The numbers in a Prometheus page, summed over labels; what is not on it is 0."""
    sums = dict.fromkeys(_METRICS.values(), 0.0)
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        field = _METRICS.get(name.partition("{")[0])
        if field is not None:
            sums[field] += float(value)
    return Numbers(**sums)


def why_ended(body: Mapping[str, Any], *, steps: int, seconds: float) -> str:
    """Why a run that was to take so many steps, in so many seconds at most, ended, by its summary.json."""
    done = body["last_step"]
    if done >= steps:
        return f"all its {steps} steps were done"
    if body["ending"] == "out of time":
        return f"its {seconds:g} s were over, as is meant; a faster machine takes up to {steps} steps in them"
    return f"{body['ending']}, after {done} of {steps} steps"


def print_summary(
    console: Console, body: Mapping[str, Any], *, chunks: Sequence[Mapping[str, str]], killed: str, ended: str
) -> None:
    """Print what a run's summary.json and the chunker's report say, what was killed, and why the run ended, as a table
    of two columns."""
    table = Table(box=None, show_header=False, title="what the run was", title_justify="left")
    table.add_column(style="bold")
    states = Counter(row["state"] for row in chunks)
    waits = sorted(body["wait_s"].items(), key=lambda item: -item[1])[:_CAUSES]
    for name, text in (
        ("videos used", f"{states['whole'] + states['in part']} of {len(chunks)}{_others(states)}"),
        ("steps", f"{body['steps']} of {body['clips'] // max(body['steps'], 1)} clips in {body['seconds']:.1f} s"),
        ("ended", ended),
        ("videos/s", f"{body['videos_per_s']:.1f}"),
        ("starvation", f"{body['starvation_percent']:.1f} % of the time waited for data"),
        (
            "the wait was",
            ", ".join(f"{cause} {spent_s:.2f} s" for cause, spent_s in waits if spent_s >= 0.005) or "none",
        ),
        ("loss", f"{body['loss_first']:.4f} → {body['loss_last']:.4f}"),
        ("read", f"{body['read_bytes_per_clip'] / 1e3:.1f} kB of storage a clip"),
        ("retries", ", ".join(f"{reason} {count}" for reason, count in body["retries"].items()) or "none"),
        ("killed", killed or "nothing: the training was over before half of its time"),
    ):
        table.add_row(name, text)
    console.print(table, highlight=False)


def _others(states: Mapping[str, int]) -> str:
    others = [f"{count} {state}" for state, count in sorted(states.items()) if state != "whole"]
    return f" ({', '.join(others)})" if others else ""
