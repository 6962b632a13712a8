"""Recipes as files and changes: what is read was written, any field can be changed, and what is none is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from framefeed.cli.command import main
from framefeed.errors import BadInput
from tests.unit.trainer.stored_runs import kept_in, save
from trainer_client.training.recipes.catalogue import RECIPES, find_recipe, makers
from trainer_client.training.recipes.mae import mae
from trainer_client.training.recipes.overrides import changed, fields_of, paths_of, plain, rebuilt
from trainer_client.training.recipes.rebuild import rebuild_step
from trainer_client.training.recipes.recipe import Recipe, decides, runs
from trainer_client.training.recipes.recipe_file import read_recipe, write_recipe
from trainer_client.training.recipes.train import Train
from trainer_client.training.run_state import TrainState

PLACES = {"root": Path("root"), "out": Path("run")}
RECIPE = changed(
    mae(**PLACES),
    "crop_scale=[0.3, 1.0]",
    'feed.servers=["tcp://a:1", "shm://@b"]',
    "curve_key=keys/a.secret",
    "curve_server=keys/b.public",
    "learning.lr=1e-3",
    "betas=[0.8, 0.9]",
    "device=cpu",
    "micro_clips=4",
    "skip_step=[3, 5]",
)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.json", RECIPE)
    assert read_recipe(tmp_path / "recipe.json", makers()) == RECIPE


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_its_file(name: str) -> None:
    recipe = changed(find_recipe(name), "root=/r", "out=/o", *_annotations(name))
    body = plain(recipe)
    assert json.loads(json.dumps(body)) == body
    assert rebuilt(makers()[name](), body) == recipe


def _annotations(name: str) -> list[str]:
    return ["data.path=/a"] if "what.data.path" in paths_of(find_recipe(name)) else []


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_command_line_and_python_say_the_same_of_every_field(name: str) -> None:
    """Each field as an option, by its short name, and as a change, by its whole path, from the same value."""
    python = changed(find_recipe(name), "root=/r", "out=/o", "base_lr=0.5", "batch_clips=6", *_annotations(name))
    places = ["/r", "--out", "/o", *(option for one in _annotations(name) for option in ("--data.path", one[10:]))]
    assert Train.parse([name, *places, "--base-lr", "0.5", "--batch-clips", "6"]).recipe == python
    assert Train.parse([name, *places, "learning.base_lr=0.5", "what.length.batch_clips=6"]).recipe == python


def test_any_field_can_be_changed_by_any_end_of_its_path(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.json", RECIPE)
    read = read_recipe(tmp_path / "recipe.json", makers())
    new = changed(read, "learning.layer_decay=0.75", "how.session.out=/tmp/a=b", "lr=null", "mask_ratio=0.5")
    assert (new.what.learning.layer_decay, new.what.learning.lr) == (0.75, None)
    assert fields_of(new.what.task)["mask_ratio"] == 0.5
    assert new.how.session.out == Path("/tmp/a=b")
    assert new.how.feed == RECIPE.how.feed


@pytest.mark.parametrize(
    ("typed", "length", "rates"),
    [
        ((), (6, 3.0), (None, 0.5, 2.0)),  # the checkpoint's steps, which are its epochs'
        (("--epochs", "5"), (None, 5.0), (None, 0.5, 2.0)),
        (("what.length.steps=40",), (40, None), (None, 0.5, 2.0)),
        (("--lr=0.25", "--clip-norm", "1"), (6, 3.0), (0.25, 1.5e-4, 1.0)),
    ],
)
def test_what_a_run_that_resumes_is_not_told_stays_its_own(
    typed: tuple[str, ...], length: tuple[int | None, float | None], rates: tuple[float | None, ...], tmp_path: Path
) -> None:
    own: dict[str, Any] = {"steps": 6, "epochs": 3.0, "lr": None, "base_lr": 0.5, "clip_norm": 2.0}
    kept = kept_in(tmp_path / "run", **own)
    save(kept, TrainState(step=6, tensors={"model.w": torch.zeros(1)}, data={}))
    damaged = tmp_path / "run" / "step_000000009"
    damaged.mkdir()
    (damaged / "checkpoint.json").write_text("{")
    command = ["mae", "/r", "--out", str(tmp_path / "run"), "--resume", *typed]
    what = Train.parse(command).recipe.what
    assert (what.length.steps, what.length.epochs) == length
    assert (what.learning.lr, what.learning.base_lr, what.learning.clip_norm) == rates
    begun = Train.parse([word for word in command if word != "--resume"]).recipe
    assert begun.what.length.steps != 6  # only what resumes looks
    write_recipe(tmp_path / "mine.json", changed(begun, "steps=7", "epochs=null"))
    again = Train.parse([str(tmp_path / "mine.json"), "--resume"]).recipe
    assert again.what.length.steps == 7  # a file says it


def test_fields_that_only_fit_together_change_together() -> None:
    new = changed(RECIPE, "steps=null", "epochs=3")
    assert (new.what.length.steps, new.what.length.epochs) == (None, 3.0)
    with pytest.raises(BadInput, match="--steps and --epochs are both None"):
        changed(RECIPE, "steps=null")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("learning.layer_deca=0.75", "there is no field learning.layer_deca; did you mean learning.layer_decay?"),
        ("lerning.lr=1", "there is no field lerning.lr; did you mean learning.lr?"),
        ("mask_raito=1", "there is no field mask_raito; did you mean mask_ratio?"),
        ("mask_ratio.x=1", "there is no field mask_ratio.x; did you mean task.mask_ratio?"),
        ("zzz=1", "there is no field zzz; wanted one of accept, "),
        ("learning=1", "learning is a group of fields; wanted one of what.learning.lr, "),
        ("compute.nproc=many", "nproc is 'many', wanted a whole number"),
        ("preset=gigantic", "gigantic"),
        ("compute.nproc=0", "nproc is 0, wanted 1 or more"),
        ("batch_clips=0", "--batch-clips is 0, wanted at least 1"),
        ("epochs=-1", "--epochs is -1, wanted more than 0"),
        ("mask_ratio", "change is 'mask_ratio', wanted name.of.field=value"),
    ],
)
def test_a_change_that_is_none_is_one_line(change: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        changed(RECIPE, change)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is of kind 'NoneType', wanted one of "),
        ('{"name": "clip"}', "is of kind 'clip'"),
        (
            '{"name": "mae", "what": {"task": {"masc_ratio": 1}}}',
            "no field what.task.masc_ratio; did you mean what.task",
        ),
        (
            '{"name": "mae", "how": {"feed": {"server": []}}}',
            "no field how.feed.server; did you mean how.feed.servers?",
        ),
        ('{"name": "mae", "how": {"feed": 3}}', "how.feed is a int, wanted fields by name"),
        ('{"name": "mae", "what": 3}', "what is a int, wanted fields by name"),
    ],
)
def test_a_file_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (tmp_path / "recipe.json").write_text(text)
    assert main(["train", str(tmp_path / "recipe.json")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_file_without_its_places_has_to_be_told_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.json").write_text('{"name": "mae", "what": {"learning": {"lr": 0.5}}}')
    assert main(["train", str(tmp_path / "recipe.json")]) == 2
    assert "missing ROOT (" in capsys.readouterr().err
    recipe = Train.parse([str(tmp_path / "recipe.json"), "root=/r", "--out", "/o"]).recipe
    assert recipe == changed(mae(root=Path("/r"), out=Path("/o")), "lr=0.5")


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read" in capsys.readouterr().err


def test_help_lists_every_recipe_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for name, make in RECIPES.items():
        line = (make.__doc__ or "").partition("\n")[0]
        assert len(line) > 20, name
        assert any(name in row and line[:30] in row for row in said.splitlines()), name


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_short_names_of_fields_are_one_field_each(name: str) -> None:
    """What a checkpoint keeps of WHAT and HOW does not overlap: one may not change, the other may."""
    recipe: Recipe = find_recipe(name)
    assert recipe.name == name
    what, how = decides(recipe), runs(recipe)
    assert not what.keys() & how.keys()
    assert {"lr", "base_lr", "clip_norm", "batch_clips", "steps", "seed"} <= what.keys()
    assert {"servers", "out", "precision", "nproc", "micro_clips", "attention", "prefetch_batches"} <= how.keys()


def test_a_step_of_a_run_from_elsewhere_says_whose_root_it_is_and_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path / "recipe.json", RECIPE)
    with pytest.raises(BadInput) as seen:
        rebuild_step(tmp_path, 1)
    assert str(seen.value) == (
        "root root is not a folder; wanted one made by 'framefeed chunk' or 'framefeed index'; it is the root in "
        f"{tmp_path}/recipe.json of the folder that the run was started in, and this is {tmp_path}: --root DIR says "
        "where the videos are now"
    )
    with pytest.raises(BadInput, match=r"^root there is not a folder; wanted one made by .* 'framefeed index'$"):
        rebuild_step(tmp_path, 1, root=Path("there"))
