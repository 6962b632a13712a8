"""What is scored while a run trains, and when; which reports stay when it goes on; what is the best so far."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from framefeed.crops import ResizedCentreCrop
from framefeed.errors import BadInput
from framefeed.sampling import Segments
from tests.unit.trainer.small_run import NoStops, make_loop
from tests.unit.trainer.stored_runs import kept_in
from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.eval_options import EvalOptions
from trainer_client.evaluate.report import Clips, Report
from trainer_client.evaluate.score_files import ScoreFiles
from trainer_client.evaluate.score_metrics import ScoreMetrics
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.training.best_score import BestScore, Metric, best_of
from trainer_client.training.loop import Limits
from trainer_client.training.ranks import Ranks
from trainer_client.training.recipes.catalogue import RECIPES
from trainer_client.training.recipes.evaluating import eval_loading
from trainer_client.training.saver import Rhythm, Saver

LEARNED = DataSpec(kind="kinetics", path=Path("lists"), classes=Path("names.txt"))
CLIPS = Clips(rows=4, samples=3, scored=2, stood_in=1, missing=1, left_out={"past the end": 1})
REPORT = Report(metric="m", scores={"mAP": 0.5, "loss": 0.25}, views={}, weights={}, data={}, clips=CLIPS)


@pytest.mark.parametrize(
    ("options", "due"),
    [
        (EvalOptions(eval_every=4), [4, 8, 11]),
        (EvalOptions(eval_every=4, eval_first=True), [0, 4, 8, 11]),
        (EvalOptions(eval_epochs=1), [5, 10, 11]),
        (EvalOptions(eval_every=8, eval_epochs=1), [8, 11]),
        (EvalOptions(eval_epochs=0.5), [2, 4, 6, 8, 10, 11]),
        (EvalOptions(eval_epochs=0.01), list(range(1, 12))),
        (EvalOptions(eval_epochs=100), [11]),
        (EvalOptions(eval_first=True), [0, 11]),
    ],
)
def test_it_is_scored_after_so_many_steps_or_epochs_and_at_the_end(options: EvalOptions, due: list[int]) -> None:
    rhythm = options.rhythm(steps=11, steps_an_epoch=5)
    assert options.wanted
    assert [step for step in range(12) if rhythm.is_due(step)] == due


def test_nothing_is_scored_unless_it_is_asked_for() -> None:
    assert not EvalOptions().wanted


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"eval_every": -1}, "--eval-every is -1, wanted 0 or more"),
        ({"eval_epochs": float("nan")}, "--eval-epochs is nan, wanted 0 or more"),
        ({"eval_clips": 0}, "--eval-clips is 0, wanted 1 or more"),
    ],
)
def test_what_makes_no_evaluation_is_one_line(wrong: dict[str, float], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        EvalOptions(**wrong)  # type: ignore[arg-type]


def test_what_is_scored_on_is_what_is_learned_from_but_its_split_or_what_is_named() -> None:
    own = EvalOptions().data(LEARNED)
    assert (own.kind, own.path, own.split, own.classes) == ("kinetics", Path("lists"), "val", Path("names.txt"))
    other = EvalOptions(eval_kind="ek100_mir", eval_path=Path("epic"), eval_split="test").data(LEARNED)
    assert (other.kind, other.path, other.split, other.classes) == ("ek100_mir", Path("epic"), "test", None)
    with pytest.raises(BadInput, match="--eval-kind is None and --eval-path epic, wanted both"):
        EvalOptions(eval_path=Path("epic")).data(None)


def test_a_recipes_best_score_needs_an_evaluation() -> None:
    recipe = RECIPES["classify_tiny"](Path("root"), Path("out"), Path("lines"))
    with pytest.raises(BadInput, match="--keep-best is max:val/top1 and nothing is scored; wanted --eval-epochs"):
        replace(recipe.how, session=replace(recipe.how.session, keep_best="max:val/top1"))


def test_reports_of_steps_that_are_trained_anew_go(tmp_path: Path) -> None:
    files = ScoreFiles(tmp_path, Ranks())
    files.begin(after=None)
    for step in (0, 4, 8):
        files.write(step, {"": REPORT, "average": REPORT})
    (tmp_path / "eval" / "notes.txt").write_text("mine")
    again = ScoreFiles(tmp_path, Ranks())
    again.begin(after=4)
    assert [step for step in (0, 4, 8) if again.has(step)] == [0, 4]
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {
        "notes.txt",
        *(f"step_{step:09d}{name}.json" for step in (0, 4) for name in ("", ".average")),
    }
    assert json.loads((tmp_path / "eval" / "step_000000004.json").read_text())["clips"]["left_out"] == {
        "past the end": 1
    }
    again.begin(after=None)
    assert [path.name for path in (tmp_path / "eval").iterdir()] == ["notes.txt"]


def test_a_line_of_scores_says_what_it_is_without() -> None:
    assert REPORT.line() == (
        "mAP 50.00 %, loss 0.25 (2 of 4 rows; 1 rows past the end; 1 clips missing; 1 of them stood in for)"
    )


def test_scores_of_other_clips_are_not_compared() -> None:
    metric = Metric.read("max:val/mAP")
    first = best_of(None, metric, value=0.5, step=4, of="one")
    assert first is not None
    assert best_of(first, metric, value=0.4, step=8, of="one") is first
    assert best_of(first, metric, value=0.4, step=8, of="other") == BestScore(
        metric=metric, value=0.4, step=8, of="other"
    )
    assert BestScore.read(json.loads(json.dumps(first.as_json()))) == first


def test_the_best_of_held_out_scores_is_saved_where_it_was_scored_and_stays(tmp_path: Path) -> None:
    metric = Metric.read("max:val/mAP")
    loop = make_loop(steps=9)
    saver = Saver(loop, kept_in(tmp_path, keep=1), Rhythm(steps=100), metric=metric)
    loop.on_record.append(saver.record)
    for step, value in ((0, 0.9), (3, 0.2), (5, 0.6), (7, 0.4)):
        loop.run(Limits(steps=step), stops=NoStops(), saves=saver)
        saver.keep_best(loop.steps_done, {"val/mAP": value, "val/nDCG": 0.0}, of="these")
    loop.run(Limits(steps=9), stops=NoStops(), saves=saver)
    saver.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000005", "step_000000009"]
    best = kept_in(tmp_path).load(tmp_path / "step_000000009", Ranks()).best
    assert best == BestScore(metric=metric, value=0.6, step=5, of="these")
    with pytest.raises(BadInput, match="--keep-best names val/mAP, wanted one of val/top1"):
        saver.keep_best(9, {"val/top1": 0.1}, of="these")


def test_held_out_clips_are_asked_of_the_runs_servers_as_an_evaluation_once_and_in_order() -> None:
    samples = [Sample(video="v", start_s=0.0, end_s=1.0)]
    policy = ClipPolicy(sampling=Segments(frames=2), crop=ResizedCentreCrop(), width_px=16, height_px=16)
    servers = ("tcp://10.0.0.1:5555", "tcp://10.0.0.2:5555")
    own = LoaderOptions(servers=servers, batch_clips=8, steps=9, run="mine", order="window:2", attempt_s=7.0)
    with ClipLoader(samples, policy, own) as loader:
        found = eval_loading(EvalOptions(eval_every=1, eval_lost=3), loader, Path("root"))
        other = eval_loading(EvalOptions(eval_every=1, eval_root=Path("epic")), loader, Path("epic"))
    assert (found.servers, found.run, found.attempt_s) == (servers, "mine", 7.0)
    assert (found.work_class, found.epochs, found.steps, found.shuffle) == ("eval", 1, None, False)
    assert (found.order, found.batch_clips, found.poison.policy, found.poison.budget) == ("strict", 32, "replace", 3)
    assert (other.servers, other.root) == (("local",), Path("epic"))


def test_scores_and_scored_clips_are_on_the_metrics_page() -> None:
    registry = CollectorRegistry()
    metrics = ScoreMetrics(registry, rank=1)
    assert registry.get_sample_value("framefeed_trainer_evaluated_clips_total", {"rank": "1"}) == 0.0
    metrics.count(5)
    metrics.show({"val/mAP": 0.25})
    metrics.show({"val/mAP": 0.5})
    assert registry.get_sample_value("framefeed_trainer_evaluated_clips_total", {"rank": "1"}) == 5.0
    assert registry.get_sample_value("framefeed_trainer_score", {"rank": "1", "score": "val/mAP"}) == 0.5
