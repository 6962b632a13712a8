"""The small twins of the recipes, all five tasks, from made video with captions and labels to a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed.cli.command import main
from framefeed_models.weights.saved_model import load_model
from tests.integration.made_roots import root_of_scenes, small_server
from tests.integration.serving import Server
from tests.integration.test_train import losses
from trainer_client.text.narration_bpe import NarrationTokenizer
from trainer_client.training.export import Export
from trainer_client.training.recipes.catalogue import RECIPES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TINY = sorted(name for name in RECIPES if name.endswith("_tiny"))
STEPS = 40
SMALL = ("--batch-clips", "8", "--steps", str(STEPS), "--log-every", "1", "--prefetch-batches", "2")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of_scenes(tmp_path_factory.mktemp("scenes"), train=48, val=8)


@pytest.fixture(scope="module")
def server(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("logs"), scenes, threads=1) as one:
        yield one


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def words(scenes: Path, server: Server, out: Path, *more: str) -> list[str]:
    return [str(scenes), "--out", str(out), f"data.path={scenes}", "--servers", server.endpoint, *SMALL, *more]


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_recipe_learns_and_its_model_is_exported(
    scenes: Path, server: Server, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", name, *words(scenes, server, out)]) == 0, capsys.readouterr().err
    seen = losses(out)
    assert len(seen) == STEPS
    assert all(math.isfinite(loss) for loss in seen)
    assert sum(seen[-8:]) < sum(seen[:8]), "it learns"
    Export(checkpoint=out, out=tmp_path / "exported").run()
    _, config = load_model(tmp_path / "exported")
    said = json.loads((out / f"step_{STEPS:09d}" / "config.json").read_text())["config"]
    assert said["kind"] == type(config).__name__
    if name in ("contrastive_tiny", "ranking_tiny"):
        tokenizer = NarrationTokenizer.load(out / "tokenizer.json")
        assert said["text"]["vocabulary"] == tokenizer.layout.vocabulary


def test_a_runs_file_is_the_run_and_what_may_not_change_does_not(
    scenes: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file makes the same losses; resumed, WHAT is refused by name, and HOW is recorded."""
    steps = ("--steps", "6")
    assert main(["train", "contrastive_tiny", *words(scenes, server, tmp_path / "run", *steps)]) == 0
    again = ["train", str(tmp_path / "run" / "recipe.json"), f"out={tmp_path / 'again'}"]
    assert main(again) == 0
    assert losses(tmp_path / "again") == losses(tmp_path / "run")
    capsys.readouterr()
    assert main([*again, "resume=true", "hflip=0.5"]) == 2
    assert "is of another run: hflip was 0.0 and is 0.5" in capsys.readouterr().err
    assert main([*again, "resume=true", "micro_clips=4", "skip_step=[3]"]) == 0
    said = capsys.readouterr().out
    assert "resuming after step 6" in said
    assert "--skip-step 3 leaves nothing out" in " ".join(said.split()), "it was taken before the checkpoint"
    line = json.loads((tmp_path / "again" / "changes.jsonl").read_text())
    assert (line["changes"], line["skip_steps"]) == ("micro_clips was None and is 4", [3])


def test_a_recipe_begins_from_another_recipes_run(
    scenes: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A classifier from a dual encoder, as AVION's; resumed it does not look for the first run again."""
    assert main(["train", "contrastive_tiny", *words(scenes, server, tmp_path / "a", "--steps", "2")]) == 0
    begun = ["--init-from", str(tmp_path / "a"), "--steps", "2"]
    assert main(["train", "classify_tiny", *words(scenes, server, tmp_path / "b", *begun)]) == 0
    assert "weights from framefeed" in capsys.readouterr().out
    (tmp_path / "a").rename(tmp_path / "gone")
    assert main(["train", "classify_tiny", *words(scenes, server, tmp_path / "b", *begun, "--resume")]) == 0
    assert main(["train", "classify_tiny", *words(scenes, server, tmp_path / "c", *begun)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        (
            "classify_tiny",
            'heads={"label": 2}',
            "label 'label' of the data set goes up to 3, wanted 0 to 1, as heads say",
        ),
        ("classify_tiny", 'heads={"verb": 9}', "heads have 'verb', which is no label of the data set; it has label"),
        ("classify_tiny", "data.split=test", "has no row, wanted at least one: an empty split"),
        ("classify_tiny", "data.path=/nowhere", "/nowhere"),
        ("classify_tiny", "init_from=/nowhere", "/nowhere"),
        ("ranking_tiny", "margin=0", "ranking: margin is 0.0, wanted more than 0"),
        ("contrastive_tiny", "text_width=0", "width is 0, wanted at least 1"),
        ("contrastive_tiny", "tokenizer_file=/nowhere", "tokenizer /nowhere cannot be read"),
        ("cmae_tiny", "longest_shift=-1", "--longest-shift is -1, wanted 0 or more frames"),
        ("mae_tiny", "mask_ratio=1.5", "ratio is 1.5"),
    ],
)
def test_bad_input_is_one_line(
    scenes: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[str, str, str]
) -> None:
    name, change, says = wrong
    assert main(["train", name, *words(scenes, server, tmp_path / "run", change)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_two_processes_train_what_one_does(scenes: Path, server: Server, tmp_path: Path) -> None:
    steps = ("--steps", "5")
    for name, nproc in (("one", "1"), ("two", "2")):
        assert (
            main(["train", "contrastive_tiny", *words(scenes, server, tmp_path / name, *steps, "--nproc", nproc)]) == 0
        )
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
