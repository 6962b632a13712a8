"""The recipe: bad options are one clear line, defaults are VideoMAE's, and what it builds is what was chosen."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
import torch

from framefeed.cli.command import main
from framefeed.errors import BadInput
from framefeed_models.videomae import PRESETS, VideoMAEConfig
from tests.manifests import manifest_of
from trainer_client.samples import Sample
from trainer_client.training.processes import ranks_in
from trainer_client.training.ranks import Ranks
from trainer_client.training.recipes.build import Built, build
from trainer_client.training.recipes.mae import mae
from trainer_client.training.recipes.model_spec import Kernels, decided
from trainer_client.training.recipes.overrides import changed
from trainer_client.training.recipes.recipe import Recipe
from trainer_client.training.recipes.run import run_config
from trainer_client.training.recipes.run_data import RunData
from trainer_client.training.recipes.task_spec import MaeSpec
from trainer_client.training.recipes.train import Train

NEEDED = ("--servers", "tcp://127.0.0.1:5555", "--metrics-port", "0", "--preset", "tiny", "--device", "cpu")


def recipe(*changes: str) -> Recipe:
    return changed(mae(root=Path("root"), out=Path("run")), *changes)


def made(*changes: str) -> Built:
    return build(recipe(*changes).what, RunData(dataset=[Sample(video="v", start_s=0.0, end_s=1.0)] * 7))


@pytest.mark.parametrize(
    ("words", "steps", "epochs"),
    [
        (("--epochs", "2"), None, 2.0),
        (("epochs=2",), None, 2.0),
        (("--steps", "10"), 10, None),
        (("epochs=2", "steps=null"), None, 2.0),
        ((), 1000, None),
    ],
)
def test_what_is_said_of_the_length_takes_the_place_of_what_the_recipe_has(
    words: tuple[str, ...], steps: int | None, epochs: float | None
) -> None:
    length = Train.parse(["mae_tiny", "root", "--out", "run", "--data.path", "t", *words]).recipe.what.length
    assert (length.steps, length.epochs) == (steps, epochs)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    manifest_of({"v": 20.0}).write(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--batch-clip", "4"), "--batch-clips"),
        (("--mask-raito", "0.5"), "--mask-ratio"),
        (("--preset", "gigantic"), "gigantic"),
        (("--steps", "0"), "--steps is 0, wanted at least 1"),
        (("--steps", "10", "--epochs", "2"), "--steps is 10 and --epochs is 2; wanted one of them"),
        (("length.steps=10", "--epochs=2"), "--steps is 10 and --epochs is 2; wanted one of them"),
        (("--steps", "many"), "many"),
        (("--max-seconds", "-1"), "--max-seconds is -1, wanted more than 0"),
        (("--checkpoint-every", "0"), "--checkpoint-every is 0"),
        (("--warmup", "2"), "--warmup is 2, wanted a share"),
        (("--clip-norm", "-1"), "--clip-norm is -1"),
        (("--lr", "nan"), "--lr is nan"),
        (("--threads", "-1"), "--threads is -1"),
        (("--nproc", "0"), "--nproc is 0, wanted 1 or more"),
        (("--micro-clips", "0"), "--micro-clips is 0"),
        (("--skip-step", "-1"), "--skip-step (-1,)"),
        (("--optimizer", "adam"), "adamw"),
        (("--layer-decay", "2"), "--layer-decay is 2, wanted more than 0, at most 1"),
        (("--average-decay", "1"), "--average-decay is 1, wanted 0 or more and less than 1"),
        (("--size-px", "100"), "--size-px is 100, wanted a multiple of 8"),
        (("--frames", "7"), "--frames is 7, wanted a multiple of 2"),
        (("--stride-frames", "0"), "--stride-frames is 0, wanted 1 to 1000"),
        (("--mask-ratio", "1.5"), "--mask-ratio is 1.5, wanted more than 0 and less than 1"),
        (("--window-s", "0"), "--window-s is 0"),
        (("--crop-scale", "0", "1"), "--crop-scale is 0 1, wanted 0 < low <= high <= 1"),
        (("--betas", "0.9", "1.5"), "--betas is 0.9 1.5, wanted both 0 or more and less than 1"),
        (("--prefetch-mib", "0"), "--prefetch-mib is 0"),
        (("--servers", "localhost:5555"), "names no transport"),
        (("--metrics-host", "203.0.113.1"), "--metrics-host 203.0.113.1 cannot be taken"),
    ],
)
def test_a_bad_option_is_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    args = ["train", "mae", str(root), *NEEDED, "--out", str(tmp_path / "run"), *options]
    assert main(args) != 0
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.glob("run/*step_*"))


def test_a_missing_root_and_a_missing_option_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "mae", str(tmp_path / "none"), *NEEDED, "--out", str(tmp_path / "run")]) == 2
    assert "none is not a folder" in capsys.readouterr().err
    assert main(["train", "mae", str(tmp_path), *NEEDED]) == 2
    assert "--out" in capsys.readouterr().err


def test_another_runs_folder_is_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "step_000000005").mkdir()
    args = ["train", "mae", str(root), *NEEDED, "--out", str(tmp_path)]
    assert main(args) == 2
    assert "holds step_000000005 of an earlier run; wanted --resume or another --out" in capsys.readouterr().err
    assert main([*args, "--resume"]) == 2
    said = capsys.readouterr()
    assert f"checkpoint {tmp_path}/step_000000005 is damaged (it has no checkpoint.json)" in said.out
    assert "has 1 checkpoints, none of them whole" in said.err


def test_a_checkpoint_of_an_earlier_version_is_refused_by_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"framefeed_checkpoint": 2}, tmp_path / "step_000000005.pt")
    args = ["train", "mae", str(root), *NEEDED, "--out", str(tmp_path)]
    assert main(args) == 2
    assert "holds step_000000005.pt of an earlier run; wanted --resume or another --out" in capsys.readouterr().err
    assert main([*args, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "holds step_000000005.pt, a single-file checkpoint of an earlier framefeed, which is not read" in said
    assert said.count("\n") == 1


def test_a_folder_in_use_is_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        assert main(["train", "mae", str(root), *NEEDED, "--out", str(tmp_path)]) == 2
    finally:
        os.close(held)
    assert f"--out {tmp_path} is in use by another run; wanted another --out, or its end" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("0", "two")])
def test_ranks_that_are_none_are_refused(rank: str, world: str) -> None:
    with pytest.raises(BadInput, match=f"RANK is {rank!r} of WORLD_SIZE {world!r}, wanted 0 <= rank"):
        ranks_in({"RANK": rank, "WORLD_SIZE": world})
    assert ranks_in({}) == Ranks()


def test_rank_0_alone_says_what_is_wrong_with_options(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert main(["train", "mae", str(root), *NEEDED, "--steps", "many"]) == 2
        assert capsys.readouterr().err.count("\n") == lines


def test_the_defaults_are_videomaes() -> None:
    built = made()
    assert isinstance(built.model, VideoMAEConfig)
    model = built.model
    assert (model.grid.frames, model.grid.height_px, model.encoder.width) == (16, 224, 768)
    policy = built.policy()
    assert policy.shape == (16, 336, 224)
    assert policy.pixel_format == "yuv420p"
    assert built.what.task == MaeSpec(mask_ratio=0.9, mask_shape="tube")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_taken_whole(name: str) -> None:
    assert made(f"preset={name}").model == PRESETS[name]


def test_what_is_chosen_is_built() -> None:
    built = made("preset=tiny", "frames=4", "size_px=32", "pixel_format=rgb24", "hflip=0.0", "stride_frames=2")
    model = recipe("attention=sdpa-flash", "checkpointing=sqrt").how.kernels.on(built.model)
    assert isinstance(model, VideoMAEConfig)
    assert (model.grid.frames, model.grid.height_px, model.grid.width_px) == (4, 32, 32)
    for stack in (model.encoder, model.decoder):
        assert (stack.attention, stack.checkpointing) == ("sdpa-flash", "sqrt")
    assert decided(model) == built.model
    policy = built.policy()
    assert (policy.shape, policy.hflip_probability) == ((4, 32, 32, 3), 0.0)


def test_the_configuration_names_what_decides_the_weights_and_how_apart() -> None:
    built = made("preset=tiny")
    config = run_config(built_recipe := recipe("preset=tiny"), built, steps=11)
    what, how = config.what, config.how
    assert (what["samples"], what["steps"], what["recipe"]) == (7, 11, "mae")
    assert {"preset", "mask_ratio", "mask_shape", "lr", "betas", "steps", "seed", "batch_clips"} <= set(what)
    assert what["model.encoder.width"] == 128
    other = run_config(recipe("preset=tiny", "attention=reference", "checkpointing=block"), built, steps=11)
    assert other.what == what, "how it is computed is not what is computed"
    assert other.how != how
    assert {"servers", "out", "log_every", "device", "precision", "prefetch_batches", "metrics_port"} <= set(how)
    assert not {"resume", "skip_step"} & set(how), "said anew at each start"
    assert json.loads(json.dumps(config.said)) == config.said
    assert built_recipe.how.kernels == Kernels()


def test_epochs_become_steps_of_whole_batches() -> None:
    length = recipe("steps=null", "epochs=2.5", "batch_clips=3").what.length
    assert length.steps_over(7) == round(2.5 * 3)
    with pytest.raises(BadInput, match="the data set has no sample"):
        length.steps_over(0)
