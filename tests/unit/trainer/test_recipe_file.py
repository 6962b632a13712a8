"""Recipes as files: what is read is what was written, any field can be changed, and what is none is one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framefeed.cli.command import main
from framefeed.errors import BadInput
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.feed_options import FeedOptions
from trainer_client.training.learning import LearningOptions
from trainer_client.training.recipes.mae import TrainMae
from trainer_client.training.recipes.recipe_file import plain, read_recipe, rebuilt, write_recipe
from trainer_client.training.recipes.train_recipe import RECIPES
from trainer_client.training.session import SessionOptions
from trainer_client.transports.credentials import Credentials

KEYS = Credentials(curve_key=Path("keys/a.secret"), curve_server=Path("keys/b.public"))
FEED = FeedOptions(servers=("tcp://a:1", "shm://@b"), credentials=KEYS)
RECIPE = TrainMae(
    root=Path("root"),
    crop_scale=(0.3, 1.0),
    feed=FEED,
    learning=LearningOptions(lr=1e-3, betas=(0.8, 0.9)),
    compute=ComputeOptions(device="cpu", micro_clips=4),
    session=SessionOptions(out=Path("run"), skip_step=(3, 5)),
)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.json", RECIPE, name="mae")
    assert read_recipe(tmp_path / "recipe.json", RECIPES) == RECIPE


def test_any_field_can_be_changed(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.json", RECIPE, name="mae")
    changes = ("learning.layer_decay=0.75", "session.out=/tmp/a=b", "learning.lr=null", "mask_ratio=0.5")
    changed = read_recipe(tmp_path / "recipe.json", RECIPES, changes=changes)
    assert (changed.learning.layer_decay, changed.learning.lr, changed.mask_ratio) == (0.75, None, 0.5)
    assert changed.session.out == Path("/tmp/a=b")
    assert changed.feed == RECIPE.feed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("learning.layer_deca=0.75", "there is no field learning.layer_deca; did you mean learning.layer_decay?"),
        ("lerning.lr=1", "there is no field lerning.lr; did you mean learning?"),
        ("mask_ratio.x=1", "there is no field mask_ratio.x"),
        ("zzz=1", "there is no field zzz; wanted one of attention, "),
        ("compute.nproc=many", "Expected `int`, got `str`"),
        ("preset=gigantic", "gigantic"),
        ("compute.nproc=0", "--nproc is 0, wanted 1 or more"),
        ("mask_ratio", "change is 'mask_ratio', wanted name.of.field=value"),
    ],
)
def test_a_change_that_is_none_is_one_line(change: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        rebuilt(plain(RECIPE), TrainMae, changes=[change])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is of kind 'NoneType', wanted one of mae"),
        ('{"recipe": "clip"}', "is of kind 'clip'"),
        ('{"recipe": "mae", "masc_ratio": 1}', "no field masc_ratio; did you mean mask_ratio?"),
        ('{"recipe": "mae", "feed": {"server": []}}', "no field feed.server; did you mean feed.servers?"),
        ('{"recipe": "mae", "feed": 3}', "feed. is a int"),
        ('{"recipe": "mae"}', "missing required field `root`"),
    ],
)
def test_a_file_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (tmp_path / "recipe.json").write_text(text)
    assert main(["train", "recipe", str(tmp_path / "recipe.json")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "recipe", str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read" in capsys.readouterr().err


def test_every_field_of_a_recipe_is_in_its_file() -> None:
    body = plain(RECIPE)
    assert json.loads(json.dumps(body)) == body
    assert rebuilt(body, TrainMae) == RECIPE
