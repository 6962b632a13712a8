"""Scores while a run trains, over a real server: those of the verb, of any number of processes, and no byte changed."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from framefeed.cli.command import main
from framefeed_models.weights.checkpoint_folder import read_header, read_whole
from tests.integration.made_roots import root_of_scenes, small_server
from tests.integration.serving import Server
from trainer_client.evaluate.evaluator import Evaluator
from trainer_client.training.loop import Stops
from trainer_client.training.meeting import Meeting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEPS, VAL = 6, 13  # an odd number of samples: no number of clips a step divides it
SMALL = ("--batch-clips", "8", "--steps", str(STEPS), "--log-every", "1", "--prefetch-batches", "2")
SCORED = ("--eval-every", "3", "--eval-clips", "4")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of_scenes(tmp_path_factory.mktemp("scenes"), train=48, val=VAL)


@pytest.fixture(scope="module")
def server(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("logs"), scenes, threads=1) as one:
        yield one


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@dataclass(frozen=True, kw_only=True)
class Training:
    """A command line without its recipe, its folder and what differs."""

    scenes: Path
    server: Server

    def __call__(self, recipe: str, out: Path, *more: str) -> int:
        words = [str(self.scenes), "--out", str(out), f"data.path={self.scenes}", "--servers", self.server.endpoint]
        return main(["train", recipe, *words, *SMALL, *more])


@pytest.fixture
def train(scenes: Path, server: Server) -> Training:
    return Training(scenes=scenes, server=server)


def reports(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "eval").iterdir()}


def test_a_run_that_is_scored_has_the_bytes_of_one_that_is_not_and_the_verbs_scores(
    train: Training, tmp_path: Path
) -> None:
    """Weights, optimizer and average; and `framefeed eval` of its checkpoint writes the same file."""
    average = ("--average-decay", "0.9", "--keep-checkpoints", "1", "--keep-best", "max:val/R@10_v2t")
    assert train("contrastive_tiny", tmp_path / "plain", "--average-decay", "0.9") == 0
    assert train("contrastive_tiny", tmp_path / "scored", *average, *SCORED, "--eval-first") == 0
    last = f"step_{STEPS:09d}"
    plain, scored = (read_whole(tmp_path / name / last, prefix="") for name in ("plain", "scored"))
    assert plain.keys() == scored.keys()
    assert any(name.startswith("average.") for name in plain)
    assert all(torch.equal(tensor, scored[name]) for name, tensor in plain.items())

    found = reports(tmp_path / "scored")
    assert sorted(found) == [f"step_{step:09d}{kind}.json" for step in (0, 3, 6) for kind in (".average", "")]
    for kind in ("", ".average"):
        model = [str(tmp_path / "scored" / last), *(("--model.average",) if kind else ())]
        data = ["--data.kind", "table", "--data.path", str(train.scenes), "--data.split", "val"]
        views = ["--views.windows", "1", "--views.boxes", "1", "--batch-clips", "4", "--device", "cpu"]
        where = ["--servers", train.server.endpoint, "--out", str(tmp_path / f"verb{kind}.json")]
        assert main(["eval", *model, str(train.scenes), *data, *views, *where]) == 0
        assert (tmp_path / f"verb{kind}.json").read_bytes() == found[f"{last}{kind}.json"]

    events = EventAccumulator(str(tmp_path / "scored" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    by_step = {step: json.loads(found[f"step_{step:09d}.json"])["scores"] for step in (0, 3, 6)}
    drawn = events.Scalars("val/R@10_v2t")
    assert [(one.step, one.value) for one in drawn] == [
        (step, float(np.float32(scores["R@10_v2t"]))) for step, scores in by_step.items()
    ]
    summary = json.loads((tmp_path / "scored" / "summary.json").read_text())["scores"]
    assert (summary["step"], summary["val/R@10_v2t"]) == (6, by_step[6]["R@10_v2t"])
    assert "val_average/top1" in summary
    best = read_header(tmp_path / "scored" / last).said["best"]
    assert isinstance(best, dict)
    assert best["value"] == max(by_step[3]["R@10_v2t"], by_step[6]["R@10_v2t"])
    assert (tmp_path / "scored" / f"step_{best['step']:09d}").is_dir()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_score_what_one_does(train: Training, tmp_path: Path, parallel: str) -> None:
    """The weights of one run, scored by one process and by two: every sample once, the same file."""
    average = ("--average-decay", "0.9")
    assert train("contrastive_tiny", tmp_path / "one", *average, "--steps", "2", *SCORED) == 0
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "eval")
    two = ("--nproc", "2", "--parallel", parallel, "--resume")
    assert train("contrastive_tiny", tmp_path / "two", *average, "--steps", "2", *SCORED, *two) == 0
    one, other = reports(tmp_path / "one"), reports(tmp_path / "two")
    assert len(one) == 2
    assert {name: body.replace(b"/two/", b"/one/") for name, body in other.items()} == one
    clips = json.loads(one["step_000000002.json"])["clips"]
    assert (clips["scored"], clips["missing"], clips["stood_in"]) == (VAL, 0, 0)


@pytest.mark.parametrize(
    ("recipe", "scores"),
    [
        ("classify_tiny", {"top1", "top5", "top1_of_mean_logits", "top5_of_mean_logits"}),
        ("mae_tiny", {"loss"}),
        ("cmae_tiny", {"loss"}),
    ],
)
def test_each_task_has_its_scores_and_a_run_that_goes_on_has_them_again(
    train: Training, tmp_path: Path, recipe: str, scores: set[str]
) -> None:
    out = tmp_path / "run"
    assert train(recipe, out, *SCORED, "--steps", "3") == 0
    (name, body), *none = reports(out).items()
    assert (name, none) == ("step_000000003.json", [])
    found = json.loads(body)
    assert found["scores"].keys() == scores
    assert all(0 <= value < 10 for value in found["scores"].values())
    assert found["clips"]["scored"] == VAL
    (out / "eval" / name).unlink()
    assert train(recipe, out, *SCORED, "--steps", "3", "--resume") == 0
    assert reports(out) == {name: body}, "the same masks and clips whenever it is scored"


def test_what_it_cannot_be_scored_on_ends_a_run_before_it_begins(
    train: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for wrong, line in (
        (("--eval-split", "test"), "has no row, wanted at least one: an empty split"),
        (("--eval-kind", "ek100_mir"), "has none of EPIC_100_retrieval_test.csv"),
        (("--keep-best", "max:val/mAP", "--eval-every", "0"), "nothing is scored"),
    ):
        assert train("contrastive_tiny", out, *SCORED, *wrong) == 2
        said = capsys.readouterr().err
        assert line in said, said
        assert said.count("\n") == 1
    assert not list(out.glob("step_*"))


def test_a_stop_ends_an_evaluation_and_the_run_that_goes_on_makes_it(
    train: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes when the first clips of the evaluation after step 3 are there."""
    out, score = tmp_path / "run", Evaluator.evaluate

    def interrupted(evaluator: Evaluator, step: int, *, meeting: Meeting, stops: Stops) -> None:
        monkeypatch.setattr(Evaluator, "evaluate", score)
        signal.raise_signal(signal.SIGTERM)
        evaluator.evaluate(step, meeting=meeting, stops=stops)

    monkeypatch.setattr(Evaluator, "evaluate", interrupted)
    assert train("classify_tiny", out, *SCORED) == 0
    assert json.loads((out / "summary.json").read_text())["ending"] == "stopped by a signal"
    assert not (out / "eval").exists()
    assert train("classify_tiny", out, *SCORED, "--resume") == 0
    assert sorted(reports(out)) == ["step_000000003.json", "step_000000006.json"]
