"""The verb `export`: a run's newest checkpoint as a folder that loads elsewhere, and what cannot be exported."""

from __future__ import annotations

import inspect
import json
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import transformers

from framefeed.errors import BadInput
from framefeed_models.cmae import CMAE, CMAEConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import PRESETS, VideoMAE, VideoMAEConfig
from framefeed_models.weights.config_json import ModelConfig
from framefeed_models.weights.files import read_weights
from framefeed_models.weights.init_from import encoder_prefix
from framefeed_models.weights.saved_model import load_model
from framefeed_models.weights.traits import encoder_of
from tests.unit.trainer.small_tasks import TASKS
from tests.unit.trainer.stored_runs import save
from trainer_client.samples import Sample
from trainer_client.text.tokens import TokenLayout
from trainer_client.training.checkpoints import Checkpoints
from trainer_client.training.export import Export, model_config, transformers_note
from trainer_client.training.recipes.build import Built
from trainer_client.training.recipes.catalogue import RECIPES
from trainer_client.training.recipes.mae import mae
from trainer_client.training.recipes.model_spec import ClassifierModel, TowersModel, decided
from trainer_client.training.recipes.run import run_config
from trainer_client.training.recipes.run_data import RunData
from trainer_client.training.run_state import TrainState

TINY = PRESETS["tiny"]
FLAT = VideoMAEConfig(
    grid=TubeletGrid(frames=4, height_px=32, width_px=32, patch_px=8),
    encoder=replace(TINY.encoder, width=32, heads=2),
    decoder=replace(TINY.decoder, width=16, heads=2),
)


def recipe_config(model: VideoMAEConfig) -> dict[str, object]:
    """What `train mae` writes into its checkpoints."""
    recipe = mae(root=Path("/r"), out=Path("/o"))
    data = RunData(dataset=[Sample(video="v", start_s=0.0, end_s=1.0)] * 3)
    built = Built(what=recipe.what, data=data, tokenizer=None, model=model)
    return run_config(recipe, built, steps=5).said


def save_run(folder: Path, model: VideoMAEConfig, *, steps: tuple[int, ...] = (3,)) -> VideoMAE:
    """A run's folder with checkpoints; the model of the last."""
    for step in steps:
        torch.manual_seed(step)
        videomae = VideoMAE(model)
        tensors = {f"model.{name}": tensor for name, tensor in videomae.state_dict().items()}
        save(Checkpoints(folder, config=recipe_config(model), keep=9), TrainState(step=step, tensors=tensors, data={}))
    return videomae.eval()


def test_the_newest_checkpoint_becomes_a_folder_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = save_run(tmp_path / "run", TINY, steps=(3, 12))
    Export(checkpoint=tmp_path / "run", out=tmp_path / "out").run()
    model, config = load_model(tmp_path / "out")
    assert config == TINY
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())
    assert "weights after step 12" in capsys.readouterr().out.replace("\n", " ")


def test_one_checkpoint_and_its_encoder(tmp_path: Path) -> None:
    save_run(tmp_path / "run", FLAT, steps=(3, 12))
    Export(checkpoint=tmp_path / "run/step_000000003", out=tmp_path / "out", part="encoder").run()
    model, config = load_model(tmp_path / "out")
    torch.manual_seed(3)
    assert config == FLAT.vit
    assert torch.equal(model.state_dict()["norm.weight"], VideoMAE(FLAT).encoder.norm.weight)


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_transformers_loads_it(part: str, tmp_path: Path) -> None:
    trained = save_run(tmp_path / "run", FLAT)
    Export(checkpoint=tmp_path / "run", out=tmp_path / "out", format="transformers", part=part).run()
    kind = transformers.VideoMAEForPreTraining if part == "model" else transformers.VideoMAEModel
    theirs, loading = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values()), loading
    clips = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    base = theirs.videomae if part == "model" else theirs
    with torch.no_grad():
        wanted = base.eval()(clips.transpose(1, 2)).last_hidden_state
        assert (trained.encoder(clips) - wanted).abs().max() <= 1e-4


def test_what_cannot_be_exported_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    save_run(tmp_path / "run", TINY)
    (tmp_path / "empty").mkdir()
    other = {name: value for name, value in recipe_config(TINY).items() if not name.startswith("model.")}
    save(Checkpoints(tmp_path / "clip", config=other, keep=9), TrainState(step=1, tensors={}, data={}))
    (tmp_path / "old").mkdir()
    torch.save({"framefeed_checkpoint": 2, "model": {}}, old := tmp_path / "old/step_000000007.pt")
    cut = save_run(tmp_path / "cut", TINY) and tmp_path / "cut/step_000000003/part_00000.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    save_run(tmp_path / "torn", TINY)
    (tmp_path / "torn/step_000000003/config.json").write_text("{")
    for checkpoint, form, complaint in (
        (tmp_path / "torn", "framefeed", "configuration .*config.json cannot be read"),
        (tmp_path / "empty", "framefeed", "holds no checkpoint"),
        (tmp_path / "none", "framefeed", "does not exist"),
        (old, "framefeed", "is a single file, as earlier versions wrote them; wanted a run's folder"),
        (
            tmp_path / "old",
            "framefeed",
            "holds no checkpoint, and step_000000007.pt of an earlier version",
        ),
        (tmp_path / "cut", "framefeed", "cannot be read: part_00000.safetensors has"),
        (tmp_path / "clip", "framefeed", "configuration is a NoneType, wanted one of"),
        (tmp_path / "run", "transformers", "positions is 'grid', wanted 'flat'"),
    ):
        with pytest.raises(BadInput, match=complaint) as caught:
            Export(checkpoint=checkpoint, out=out, format=form).run()
        assert "\n" not in str(caught.value)
        assert not out.exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    save_run(tmp_path / "run", TINY)
    export = Export(checkpoint=tmp_path / "run", out=tmp_path / "out")
    export.run()
    before = read_weights(tmp_path / "out")
    with pytest.raises(BadInput, match=r"has a config\.json and a model\.safetensors already"):
        export.run()
    assert read_weights(tmp_path / "out").keys() == before.keys()


@pytest.mark.parametrize("form", ["framefeed", "transformers"])
@pytest.mark.parametrize("is_there", [False, True])
def test_storage_that_is_full_leaves_nothing_that_blocks_another_try(
    form: Literal["framefeed", "transformers"], is_there: bool, tmp_path: Path
) -> None:
    save_run(tmp_path / "run", FLAT)
    out = tmp_path / "new" / "out"
    if is_there:
        out.mkdir(parents=True)
        (out / "notes.txt").write_text("mine")
    export = Export(checkpoint=tmp_path / "run", out=out, format=form)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # config.json has room, the weights do not
    try:
        with pytest.raises(
            BadInput, match=f"weights {out}/model.safetensors cannot be written: .*[Ff]ile too large"
        ) as caught:
            export.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.rglob("new/**/*")} == ({"out", "notes.txt"} if is_there else set())
    assert is_there or not out.parent.exists()
    export.run()
    assert {"config.json", "model.safetensors"} <= {path.name for path in out.iterdir()}


def test_the_configuration_of_a_run_is_its_model() -> None:
    options = json.loads(json.dumps(recipe_config(TINY)))
    assert model_config(options) == TINY
    with pytest.raises(ValueError, match="VideoMAEConfig has no typo"):
        model_config(options | {"model.typo": 1})
    with pytest.raises(ValueError, match=r"model\.grid\.frames is a field of grid, which is 3"):
        model_config({"model.kind": "VideoMAEConfig", "model.grid": 3} | {"model.grid.frames": 2})
    with pytest.raises(ValueError, match="configuration is a NoneType"):
        model_config({"samples": 3})


@pytest.mark.parametrize("name", ["contrastive", "classify", "cmae"])
def test_the_models_of_all_tasks_are_exported_whole_and_as_encoders(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = TASKS[name](torch.device("cpu")).model
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    config = recipe_config(model.config)
    save(Checkpoints(tmp_path / "run", config=config, keep=1), TrainState(step=1, tensors=tensors, data={}))
    for part in ("model", "encoder"):
        Export(checkpoint=tmp_path / "run", out=tmp_path / part, part=part).run()
    whole, found = load_model(tmp_path / "model")
    assert found == decided(model.config)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in whole.state_dict().items())
    encoder, found = load_model(tmp_path / "encoder")
    assert found == encoder_of(decided(model.config))
    prefix = encoder_prefix(model.config)
    assert all(torch.equal(tensor, model.state_dict()[prefix + key]) for key, tensor in encoder.state_dict().items())
    hub = Export(checkpoint=tmp_path / "run", out=tmp_path / "hub", format="transformers")
    why = {"contrastive": "transformers has VideoMAE's alone", "classify": "heads are verb, noun, wanted one"}
    with pytest.raises(BadInput, match=why.get(name, "positions is 'grid', wanted 'flat'")):
        hub.run()


def test_cmae_v_becomes_the_masked_autoencoder_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = replace(TINY.decoder, width=16, heads=2)
    model = CMAE(CMAEConfig(mae=FLAT, feature=stack, hidden=16, joint=8))
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    kept = Checkpoints(tmp_path / "run", config=recipe_config(model.config), keep=1)
    save(kept, TrainState(step=1, tensors=tensors, data={}))
    Export(checkpoint=tmp_path / "run", out=tmp_path / "hub", format="transformers").run()
    assert "without CMAE-V's contrastive branch" in capsys.readouterr().out
    theirs = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path / "hub").state_dict()
    assert torch.equal(theirs["encoder_to_decoder.weight"], model.branches.mae.bridge.weight)


def test_an_exported_file_is_readable_like_its_neighbours(tmp_path: Path) -> None:
    save_run(tmp_path / "run", FLAT)
    before = os.umask(0o027)
    try:
        for form in ("framefeed", "transformers"):
            Export(checkpoint=tmp_path / "run", out=tmp_path / form, format=form).run()
    finally:
        os.umask(before)
    modes = {
        path.name: path.stat().st_mode & 0o777
        for form in ("framefeed", "transformers")
        for path in (tmp_path / form).iterdir()
    }
    assert modes == dict.fromkeys(("config.json", "model.safetensors", "preprocessor_config.json"), 0o640)


def test_the_pixels_of_the_training_go_with_a_folder_of_transformers(tmp_path: Path) -> None:
    save_run(tmp_path / "run", FLAT)
    Export(checkpoint=tmp_path / "run", out=tmp_path / "hub", format="transformers").run()
    said = json.loads((tmp_path / "hub" / "preprocessor_config.json").read_text())
    assert said["image_mean"] == [0.485, 0.456, 0.406]
    assert said["crop_size"] == {"height": 32, "width": 32}


def test_what_says_the_classes_and_tokens_comes_with_the_whole_model(tmp_path: Path) -> None:
    save_run(tmp_path / "run", FLAT)
    beside = {"classes.json": '{"label": ["ring", "cross"]}', "tokenizer.json": "{}"}
    for name, text in beside.items():
        (tmp_path / "run" / name).write_text(text)
    (step,) = (tmp_path / "run").glob("step_*")
    for number, source in enumerate((tmp_path / "run", step)):
        out = tmp_path / f"out{number}"
        Export(checkpoint=source, out=out).run()
        assert {name: (out / name).read_text() for name in beside} == beside
    Export(checkpoint=tmp_path / "run", out=tmp_path / "encoder", part="encoder").run()
    assert {path.name for path in (tmp_path / "encoder").iterdir()} == {"config.json", "model.safetensors"}
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "classes.json").write_text("another model's")
    with pytest.raises(BadInput, match=r"has a classes\.json already"):
        Export(checkpoint=tmp_path / "run", out=tmp_path / "taken").run()


def test_the_moving_average_is_exported_where_there_is_one(tmp_path: Path) -> None:
    trained = save_run(tmp_path / "run", FLAT)
    export = Export(checkpoint=tmp_path / "run", out=tmp_path / "out", average=True)
    with pytest.raises(BadInput, match=r"has no moving average \(--average-decay was 0\)"):
        export.run()
    weights = trained.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
    tensors |= {"average.mask_token_D": weights["mask_token_D"] + 1}
    config = recipe_config(FLAT)
    save(Checkpoints(tmp_path / "run", config=config, keep=9), TrainState(step=9, tensors=tensors, data={}))
    export.run()
    model, _ = load_model(tmp_path / "out")
    assert torch.equal(model.get_parameter("mask_token_D"), weights["mask_token_D"] + 1)
    assert torch.equal(model.state_dict()["norm.weight"], weights["norm.weight"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"int8": True}, "--int8 is for --format onnx, and it is framefeed"),
        ({"measure_on": Path("/v"), "format": "transformers"}, "--measure-on is for --format onnx"),
        ({"measure_on": Path("/v"), "format": "onnx"}, "--measure-on is given without --int8"),
        ({"measure_on": Path("/v"), "format": "onnx", "int8": True}, "root /v is not a folder"),
    ],
)
def test_options_of_another_format_are_refused(options: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=line):
        Export(checkpoint=tmp_path, out=tmp_path / "out", **options).run()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_at_its_start_whether_its_model_can_become_one_of_transformers(name: str) -> None:
    """VideoMAE's own sizes and CMAE-V's can; CLIP's and TimeSformer's towers, and tiny ones, can not."""
    spec = RECIPES[name](**dict.fromkeys(inspect.signature(RECIPES[name]).parameters, Path("/r"))).what.model
    if isinstance(spec, TowersModel):
        config: ModelConfig = spec.config(TokenLayout(vocabulary=32, context=6))
    else:
        config = spec.config({"label": 3}) if isinstance(spec, ClassifierModel) else spec.config()
    why = transformers_note(config)
    can = name in ("mae", "k400_mae_pretrain", "k400_finetune", "k700_finetune", "ssv2_mae_pretrain", "cmae_pretrain")
    assert bool(why) != can
    assert not can or "\n" not in why
