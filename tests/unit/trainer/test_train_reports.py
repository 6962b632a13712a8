"""What a run says of itself: intervals, curves, metrics and the summary, from made steps."""

from __future__ import annotations

import io
import json
import math
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from framefeed.errors import BadInput
from trainer_client.measures.stats import FeedState, Ledger, snapshot
from trainer_client.measures.wait import Wait
from trainer_client.training.loop import StepRecord
from trainer_client.training.watch.curves import Curves
from trainer_client.training.watch.train_log import TrainLog, interval_of
from trainer_client.training.watch.train_metrics import TrainMetrics, metrics_page
from trainer_client.training.watch.train_summary import Summary, mean_of_ends


def record(step: int, *, loss: float = 1.0) -> StepRecord:
    return StepRecord(step=step, loss=loss, learning_rate=0.1 * step, grad_norm=2.0, clips=4, wait_s=0.5, step_s=2.0)


def write_log(folder: Path, steps: range, *, first_step: int = 0) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200)
    with (
        Curves(folder, first_step=first_step, config={}) as curves,
        TrainLog(curves, total_steps=12, every=5, first_step=first_step, console=console) as log,
    ):
        for step in steps:
            log.record(record(step, loss=step))
    return out.getvalue()


def curve(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("train/loss")]


def test_an_interval_is_means_rates_and_shares() -> None:
    interval = interval_of([record(3, loss=1.0), record(4, loss=3.0)])
    assert (interval.step, interval.loss, interval.clips_per_s, interval.wait_share) == (4, 2.0, 2.0, 0.25)
    assert interval.learning_rate == pytest.approx(0.4)


def test_lines_and_curves_come_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    said = write_log(tmp_path, range(1, 13))
    assert [line.split()[1] for line in said.splitlines()] == ["5/12", "10/12", "12/12"]
    assert "loss 3.0000" in said.splitlines()[0]
    assert "waiting 25%" in said
    assert curve(tmp_path) == [(5, 3.0), (10, 8.0), (12, 11.5)]


def test_a_resumed_run_replaces_the_curve_beyond_its_checkpoint(tmp_path: Path) -> None:
    write_log(tmp_path, range(1, 12))
    write_log(tmp_path, range(6, 11), first_step=5)
    assert [step for step, _ in curve(tmp_path)] == [5, 10]


def test_parts_of_the_loss_are_curves_too(tmp_path: Path) -> None:
    parts = [replace(record(step), parts={"top1": step / 4}, skipped=step == 3) for step in (1, 2, 3)]
    assert interval_of(parts).parts == {"top1": 0.375}, "of the steps that moved weights"
    with (
        Curves(tmp_path, first_step=0, config={}) as curves,
        TrainLog(curves, total_steps=3, every=3, first_step=0, console=Console(quiet=True)) as log,
    ):
        for one in parts:
            log.record(one)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/top1")] == [0.375]


def test_a_project_without_the_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        BadInput, match=r"^--wandb is 'mine' and the package is missing; pip install 'framefeed\[wandb\]'$"
    ):
        Curves(tmp_path, first_step=0, project="mine", config={})


@pytest.mark.slow
def test_weights_and_biases_gets_the_curves_and_a_resumed_run_goes_on_in_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package, offline: it writes what it would send."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    names = []
    for first in (0, 2):
        with Curves(tmp_path, first_step=first, project="mine", config={"lr": 0.5}) as curves:
            curves.add({"train/loss": 4.25 + first}, step=first + 1)
        names.append((tmp_path / "wandb_run").read_text().strip())
    assert names[0] == names[1]
    written = sorted(tmp_path.glob(f"wandb/offline-run-*-{names[0]}/run-{names[0]}.wandb"))
    assert written
    said = b"".join(path.read_bytes() for path in written)
    assert all(word in said for word in (b"train/loss", b"4.25", b"6.25"))


def test_metrics_are_the_steps(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics = TrainMetrics(registry)
    metrics.record(record(7, loss=0.25))
    with metrics_page(registry, host="127.0.0.1", port=0) as url:
        page = urllib.request.urlopen(url, timeout=10).read().decode()
        port = int(url.split(":")[2].partition("/")[0])
        with (
            pytest.raises(
                BadInput, match=rf"metrics_port {port} of 127\.0\.0\.1 cannot be taken \(Address already in use\)"
            ),
            metrics_page(registry, host="127.0.0.1", port=port),
        ):
            pass
    assert 'framefeed_trainer_steps_total{rank="0"} 1.0' in page
    assert 'framefeed_trainer_step{rank="0"} 7.0' in page
    assert 'framefeed_trainer_loss{rank="0"} 0.25' in page
    assert 'framefeed_trainer_step_duration_seconds_sum{rank="0"} 2.0' in page
    with metrics_page(registry, host="127.0.0.1", port=port):
        pass


def test_the_summary_counts_what_was_done(tmp_path: Path) -> None:
    summary, ledger = Summary(), Ledger()
    for step in range(101, 141):
        summary.record(record(step, loss=200 - step))
    ledger.waits.add(Wait(began_ns=0, ended_ns=6_000_000_000, first_batch=True))
    ledger.waits.add(Wait(began_ns=7_000_000_000, ended_ns=9_000_000_000))
    ledger.retries["server_lost"] += 3
    said = summary.write(tmp_path / "summary.json", snapshot(ledger, FeedState(), rank=0), ending="all steps done")
    assert said == json.loads((tmp_path / "summary.json").read_text())
    assert (said["first_step"], said["last_step"], said["steps"], said["clips"]) == (101, 140, 40, 160)
    assert (said["loss_first"], said["loss_last"]) == (98.5, 60.5)
    assert said["videos_per_s"] == 2.0
    assert said["starvation_percent"] == 10.0
    assert isinstance(waits_s := said["wait_s"], dict)
    assert {cause: spent_s for cause, spent_s in waits_s.items() if spent_s} == {"first_batch": 6.0, "plan": 2.0}
    assert said["retries"] == {"server_lost": 3}


def test_a_skipped_step_is_counted_and_its_loss_is_in_no_mean(tmp_path: Path) -> None:
    steps = [record(1, loss=2.0), StepRecord(**{**vars_of(record(2, loss=math.nan)), "skipped": True})]
    summary = Summary()
    for step in steps:
        summary.record(step)
    said = summary.write(tmp_path / "summary.json", snapshot(Ledger(), FeedState(), rank=0), ending="all steps done")
    assert (said["steps"], said["skipped_steps"], said["loss_last"]) == (2, 1, 2.0)
    assert interval_of(steps).loss == 2.0


def vars_of(step: StepRecord) -> dict[str, object]:
    return {name: getattr(step, name) for name in StepRecord.__slots__}


def test_a_run_without_a_step_has_a_summary(tmp_path: Path) -> None:
    said = Summary().write(
        tmp_path / "summary.json", snapshot(Ledger(), FeedState(), rank=0), ending="stopped by a signal"
    )
    assert (said["steps"], said["loss_first"], said["videos_per_s"]) == (0, None, 0.0)


def test_means_of_ends_take_at_least_one() -> None:
    assert mean_of_ends([3.0]) == (3.0, 3.0)
    assert mean_of_ends([5.0, 1.0]) == (5.0, 1.0)
