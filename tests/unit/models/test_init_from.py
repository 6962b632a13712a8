"""Every kind of checkpoint into every kind of model: what comes out of it, or the one line that says why not."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from framefeed_models.block import StackConfig
from framefeed_models.cmae import CMAE, CMAEConfig
from framefeed_models.pixel_norm import CLIP, IMAGENET, LAVILA, PixelNorm
from framefeed_models.weights.config_json import ModelConfig, build_model
from framefeed_models.weights.files import WeightsFileError, read_checkpoint, write_weights
from framefeed_models.weights.init_from import InitReport, encoder_prefix, init_from
from framefeed_models.weights.key_table import WeightsMismatchError
from framefeed_models.weights.natural import NotForModelError
from framefeed_models.weights.recognise import recognise
from framefeed_models.weights.saved_model import model_of, save_model
from framefeed_models.weights.traits import encoder_of, follow
from tests.unit.models import foreign_checkpoints as foreign
from tests.unit.models.foreign_checkpoints import Shapes, random_weights
from tests.unit.models.parity import randomise
from tests.unit.trainer.stored_runs import kept_in, write_part
from trainer_client.training.ranks import Ranks
from trainer_client.training.run_state import TrainState

Weights = Mapping[str, Tensor]
TARGETS: dict[str, ModelConfig] = {
    "dual": foreign.VIT_DUAL,
    "divided dual": foreign.TIMESFORMER_DUAL,
    "classifier": foreign.VIT_CLASSIFIER,
    "divided classifier": foreign.TIMESFORMER_CLASSIFIER,
    "mae classifier": foreign.MAE_CLASSIFIER,
    "vit": foreign.VIT_DUAL.video,
    "divided": foreign.TIMESFORMER_DUAL.video,
    "mae vit": foreign.MAE.vit,
    "mae": foreign.MAE,
    "cmae": CMAEConfig(mae=foreign.MAE, feature=StackConfig(width=16, depth=1, heads=2), hidden=12, joint=8),
    "mae dual": replace(foreign.VIT_DUAL, video=foreign.MAE.vit),
}
CLIP_LIKE, DIVIDED = ("dual", "classifier", "vit"), ("divided dual", "divided classifier", "divided")
MAE_LIKE = ("mae classifier", "mae vit", "mae", "cmae", "mae dual")


def wrapped(weights: Weights) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def training_script(path: Path, shapes: Shapes, **rest: object) -> Weights:
    """As AVION's and LaViLa's scripts save: DistributedDataParallel's names, a NumPy score, argparse's options."""
    weights = random_weights(shapes)
    extra = {"epoch": 3, "optimizer": {}, "scaler": {}, "best_acc1": np.float64(0.5), "args": argparse.Namespace(lr=1)}
    torch.save({"state_dict": wrapped(weights), **extra, **rest}, path / "checkpoint.pt")
    return weights


def openai(path: Path) -> Weights:
    weights = {name: tensor.half() for name, tensor in random_weights(foreign.openai_clip()).items()}
    numbers = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(foreign.L)}
    torch.save({**weights, **numbers, "vocab_size": torch.tensor(foreign.V)}, path / "checkpoint.pt")
    return weights


def open_clip(path: Path, *, text: str = "") -> Weights:
    weights = random_weights(foreign.openai_clip())
    config = {"vision_cfg": {"width": 48}, "text_cfg": {"width": 32, "heads": 2}, "quick_gelu": True}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    towers = {
        name if name.startswith(("visual.", "logit_scale")) else f"{text}{name}": tensor
        for name, tensor in weights.items()
    }
    torch.save({"epoch": 1, "name": "x", "state_dict": wrapped(towers), "optimizer": {}}, path / "checkpoint.pt")
    return weights


def videomae(path: Path, shapes: Shapes, **rest: object) -> Weights:
    weights = random_weights(shapes)
    options = argparse.Namespace(input_size=32, num_frames=4)
    torch.save({"model": weights, "optimizer": {}, "epoch": 1, "args": options, **rest}, path / "checkpoint.pt")
    return weights


def hugging_face(path: Path, model: transformers.PreTrainedModel) -> Weights:
    randomise(model)
    model.save_pretrained(path)
    return dict(model.state_dict())


def hf_clip() -> transformers.CLIPModel:
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": foreign.V, "max_position_embeddings": foreign.L, "hidden_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "intermediate_size": 64, "eos_token_id": 59, "bos_token_id": 58}
    config = transformers.CLIPConfig(
        vision_config={**vision, "intermediate_size": 96}, text_config=text, projection_dim=foreign.E
    )
    return transformers.CLIPModel(config)


def hf_videomae(kind: str) -> transformers.PreTrainedModel:
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, num_labels=5, use_mean_pooling=kind == "VideoMAEForVideoClassification",
    )  # fmt: skip
    model: transformers.PreTrainedModel = getattr(transformers, kind)(config)
    return model


def own(path: Path, config: ModelConfig) -> Weights:
    model = build_model(config)
    randomise(model)
    save_model(path, model.state_dict(), config)
    return model.state_dict()


def own_run(path: Path, config: ModelConfig) -> Weights:
    """What a run of two processes leaves, with a checkpoint before that is another's."""
    model = build_model(config)
    randomise(model)
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    averages = {f"average.{name}": tensor + 1 for name, tensor in model.named_parameters()}
    for step in (3, 12):
        kept = kept_in(path)
        kept.model = model_of(model)
        tensors = {**weights, **averages} if step == 12 else {"model.x": torch.ones(1)}
        for rank in range(2):
            write_part(kept, TrainState(step=step, tensors=tensors, data={}), Ranks(rank=rank, world=2))
        kept.commit(step, world=2)
    return model.state_dict()


# A kind of checkpoint: who writes one, the name there of the last block's second MLP weight, and what it is for.
_RES, _HF = "visual.transformer.resblocks.1.mlp", "encoder.layer.1.output.dense.weight"
SOURCES: dict[str, tuple[Callable[[Path], Weights], str, tuple[str, ...]]] = {
    "openai": (openai, f"{_RES}.c_proj.weight", (*CLIP_LIKE, *DIVIDED)),
    "open_clip": (open_clip, f"{_RES}.c_proj.weight", (*CLIP_LIKE, *DIVIDED)),
    "open_clip, text apart": (
        lambda path: open_clip(path, text="text."), f"{_RES}.c_proj.weight", (*CLIP_LIKE, *DIVIDED)
    ),
    "avion": (
        lambda path: training_script(path, foreign.avion(flash=True, fast=True)), f"{_RES}.fc2.weight", CLIP_LIKE
    ),
    "avion, plain": (
        lambda path: training_script(path, foreign.avion(flash=False, fast=False)), f"{_RES}.c_proj.weight", CLIP_LIKE
    ),
    "avion classifier": (
        lambda path: training_script(path, foreign.avion_classifier()), f"{_RES}.fc2.weight", CLIP_LIKE
    ),
    "lavila": (lambda path: training_script(path, foreign.lavila()), "visual.blocks.1.mlp.fc2.weight", DIVIDED),
    "lavila classifier": (
        lambda path: training_script(path, foreign.lavila_classifier()), "visual.blocks.1.mlp.fc2.weight", DIVIDED
    ),
    "videomae": (lambda path: videomae(path, foreign.videomae()), "encoder.blocks.1.mlp.fc2.weight", MAE_LIKE),
    "videomae, flash": (
        lambda path: videomae(path, foreign.videomae(flash=True)), "encoder.blocks.1.mlp.fc2.weight", MAE_LIKE
    ),
    "videomae classifier": (
        lambda path: videomae(path, foreign.videomae_classifier()), "blocks.1.mlp.fc2.weight", MAE_LIKE
    ),
    "hf clip": (
        lambda path: hugging_face(path, hf_clip()), "vision_model.encoder.layers.1.mlp.fc2.weight", CLIP_LIKE
    ),
    "hf videomae": (
        lambda path: hugging_face(path, hf_videomae("VideoMAEForPreTraining")), f"videomae.{_HF}", MAE_LIKE
    ),
    "hf videomae classifier": (
        lambda path: hugging_face(path, hf_videomae("VideoMAEForVideoClassification")), f"videomae.{_HF}", MAE_LIKE
    ),
    "hf videomae encoder": (lambda path: hugging_face(path, hf_videomae("VideoMAEModel")), _HF, MAE_LIKE),
    "own dual": (lambda path: own(path, TARGETS["dual"]), "video.stack.blocks.1.mlp.2.weight", CLIP_LIKE),
    "own classifier": (lambda path: own(path, TARGETS["classifier"]), "encoder.stack.blocks.1.mlp.2.weight", CLIP_LIKE),
    "own vit": (lambda path: own(path, TARGETS["vit"]), "stack.blocks.1.mlp.2.weight", CLIP_LIKE),
    "own divided dual": (lambda path: own(path, TARGETS["divided dual"]), "video.blocks.1.mlp.2.weight", DIVIDED),
    "own run of a dual": (
        lambda path: own_run(path, TARGETS["dual"]), "video.stack.blocks.1.mlp.2.weight", CLIP_LIKE
    ),
    "own run of a mae": (lambda path: own_run(path, TARGETS["mae"]), "encoder.stack.blocks.1.mlp.2.weight", MAE_LIKE),
    "own mae": (lambda path: own(path, TARGETS["mae"]), "encoder.stack.blocks.1.mlp.2.weight", MAE_LIKE),
    "own cmae": (
        lambda path: own(path, TARGETS["cmae"]), "branches.mae.encoder.stack.blocks.1.mlp.2.weight", MAE_LIKE
    ),
}  # fmt: skip
# What the model of a case starts fresh: only what its checkpoint's task does not have.
_FRESH = {
    "dual": {"text", "video_projection_DE", "text_projection_DE", "logit_scale"},
    "classifier": {"heads"},
    "vit": set(),
    "divided": set(),
    "mae": {"bridge", "mask_token_D", "decoder", "norm", "head"},
    "cmae": {"branches", "heads"},
}


def checkpoint_in(path: Path) -> Path:
    return path / "checkpoint.pt" if (path / "checkpoint.pt").exists() else path


def task(name: str) -> str:
    known = {"openai": "dual", "open_clip": "dual", "hf clip": "dual", "avion": "dual", "lavila": "dual"}
    if name.endswith(("dual", "classifier", "vit", "cmae")):
        return name.rpartition(" ")[2]
    if name == "divided":
        return "vit"
    return "vit" if name == "hf videomae encoder" else known.get(name.partition(",")[0], "mae")


def followed(name: str, path: Path) -> ModelConfig:
    return follow(TARGETS[name], recognise(path).traits)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Weights]]:
    """A checkpoint of each kind, written when it is first asked for."""

    @cache
    def write(source: str) -> tuple[Path, Weights]:
        folder = tmp_path_factory.mktemp("checkpoint")
        weights = SOURCES[source][0](folder)
        return checkpoint_in(folder), weights

    return write


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_matrix(source: str, target: str, written: Callable[[str], tuple[Path, Weights]]) -> None:
    path, weights = written(source)
    _, name, good = SOURCES[source]
    config = followed(target, path)
    torch.manual_seed(0)
    model = build_model(config)
    before = state_of(model)
    if target not in good:
        with pytest.raises(NotForModelError, match=r"are not for this model: .*wanted|has no") as caught:
            init_from(path, model)
        assert "\n" not in str(caught.value)
        assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
        return
    report = init_from(path, model)
    after = model.state_dict()
    prefix = encoder_prefix(config)
    last = f"{prefix}{'' if target in DIVIDED else 'stack.'}blocks.1.mlp.2.weight"
    assert torch.equal(after[last], weights[name].float())
    # All of the encoder moved, but for what a checkpoint of images cannot know.
    start = {key for key in after if key.startswith(prefix) and torch.equal(after[key], before[key])}
    images = source.startswith(("openai", "open_clip", "hf clip"))
    assert all(images and re.search(r"temporal_UD|norm_time|\.time\.", key) for key in start), start
    assert {*report.taken, *report.fresh} == {*after}
    assert set(report.taken).isdisjoint(report.fresh)
    if task(source) == task(target):
        assert all(images and re.search(r"norm_time|\.time\.", key) for key in report.fresh), report.fresh
    elif "cmae" not in source:
        seen = {key.partition(".")[0] for key in report.fresh if not key.startswith(prefix)}
        wanted = set(_FRESH[task(target)])
        assert seen <= wanted
        assert seen or not wanted


def test_cmaes_target_starts_as_its_online_encoder(tmp_path: Path) -> None:
    own(tmp_path, TARGETS["mae"])
    model = CMAE(TARGETS["cmae"])
    init_from(tmp_path, model)
    online = model.branches.mae.encoder.state_dict()
    for name, tensor in model.branches.target_encoder.state_dict().items():
        assert torch.equal(tensor, online[name]), name


def test_a_runs_newest_checkpoint_and_its_average_are_taken_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    wanted = own_run(tmp_path, TARGETS["mae"])
    newest = tmp_path / "step_000000012"
    for path in (tmp_path, newest):
        model = build_model(TARGETS["mae"])
        assert init_from(path, model).kind == "framefeed"
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
        report = init_from(path, model, averaged=True)
        assert "the moving average" in report.notes
        assert all(torch.equal(tensor, wanted[name] + 1) for name, tensor in model.named_parameters())
    part = newest / "part_00001.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    refused(tmp_path, TARGETS["mae"], f"weights {newest} are no whole checkpoint: part_00001.safetensors has")


def refused(path: Path, config: ModelConfig, line: str, **options: object) -> None:
    model = build_model(config)
    before = state_of(model)
    with pytest.raises((NotForModelError, WeightsFileError, WeightsMismatchError), match=line) as caught:
        init_from(path, model, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def with_stack(config: ModelConfig, tower: str, **change: object) -> ModelConfig:
    part = getattr(config, tower)
    return replace(config, **{tower: replace(part, stack=replace(part.stack, **change))})


@pytest.mark.parametrize(
    ("case", "change", "trait", "line"),
    [
        (("openai", "dual"), ("video", {"activation": "gelu"}), "activation", "video encoder is gelu, .*quick_gelu"),
        (("openai", "dual"), ("text", {"activation": "gelu"}), "activation", "text encoder is gelu, .*quick_gelu"),
        (("openai", "dual"), ("video", {"norm_eps": 1e-6}), "norm_eps", "norm eps .* is 1e-06, .* trained with 1e-05"),
        (("open_clip", "dual"), ("video", {"activation": "gelu"}), "activation", "gelu, .* quick_gelu"),
        (("avion", "dual"), ("video", {"activation": "quick_gelu"}), "activation", "is quick_gelu, .* with gelu"),
        (("avion", "dual"), ("text", {"norm_eps": 1e-6}), "norm_eps", "text encoder is 1e-06, .* trained with 1e-05"),
        (("lavila", "divided dual"), ("video", {"activation": "gelu"}), "activation", "is gelu, .* with quick_gelu"),
        (("hf clip", "dual"), ("video", {"heads": 6}), "attention_heads", "attention heads .* is 6, .* trained with 4"),
        (("hf videomae", "mae dual"), ("video", {"norm_eps": 1e-6}), "norm_eps", "is 1e-06, .* trained with 1e-12"),
        (("videomae", "mae dual"), ("video", {"activation": "quick_gelu"}), "activation", "quick_gelu, .* with gelu"),
        (("own dual", "dual"), ("text", {"norm_eps": 1e-6}), "norm_eps", "text encoder is 1e-06, .* with 1e-05"),
    ],
)  # fmt: skip
def test_what_no_tensor_shows_is_refused_unless_named(
    case: tuple[str, str], change: tuple[str, dict[str, object]], trait: str, line: str, tmp_path: Path
) -> None:
    source, target = case
    SOURCES[source][0](tmp_path)
    path = checkpoint_in(tmp_path)
    config = with_stack(followed(target, path), change[0], **change[1])
    refused(path, config, f"{line}.*; wanted the same, or '{trait}' among what is accepted")
    others = {"activation", "norm_eps", "attention_heads", "pixels"} - {trait}
    refused(path, config, line, accept=others)
    report = init_from(path, build_model(config), accept=(trait,))  # type: ignore[arg-type]
    assert any(re.search(line, note) for note in report.notes)


@pytest.mark.parametrize(
    ("source", "norm"), [("openai", CLIP), ("open_clip", CLIP), ("avion", LAVILA), ("hf clip", CLIP)]
)
def test_pixels_follow_the_source(source: str, norm: PixelNorm, tmp_path: Path) -> None:
    SOURCES[source][0](tmp_path)
    path = checkpoint_in(tmp_path)
    config = followed("dual", path)
    assert init_from(path, build_model(config)).traits.pixels == norm
    init_from(path, build_model(config), pixels=norm)
    refused(path, config, f"normalised with imagenet, the weights were trained with {norm}", pixels=IMAGENET)
    init_from(path, build_model(config), pixels=IMAGENET, accept=("pixels",))


def test_pixels_of_a_preprocessor_configuration(tmp_path: Path) -> None:
    hugging_face(tmp_path, hf_videomae("VideoMAEForPreTraining"))
    assert recognise(tmp_path).traits.pixels == IMAGENET
    saved = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    assert recognise(tmp_path).traits.pixels == PixelNorm(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def test_open_clips_activation_is_asked_for_where_nothing_says_it(tmp_path: Path) -> None:
    """The same names under GELU and QuickGELU: a guess would be silent (open_clip issue 771)."""
    open_clip(tmp_path)
    (tmp_path / "open_clip_config.json").unlink()
    path = tmp_path / "checkpoint.pt"
    config = followed("dual", path)
    refused(path, config, "do not say which activation their video encoder was trained with, the model has gelu")
    init_from(path, build_model(config), accept=("activation",))


def test_heads_are_kept_fresh_or_refused(tmp_path: Path) -> None:
    training_script(tmp_path, foreign.avion_classifier())
    path = tmp_path / "checkpoint.pt"
    model = build_model(foreign.VIT_CLASSIFIER)
    report = init_from(path, model)
    assert not report.fresh
    other = replace(foreign.VIT_CLASSIFIER, heads={"action": 7})
    refused(path, other, r"heads have \{'head 0': 5\} classes in the weights, \{'action': 7\} in the model")
    report = init_from(path, build_model(other), accept=("heads",))
    assert report.fresh == ("heads.action.bias", "heads.action.weight")
    assert len(report.left) == 2


def test_heads_keep_their_order(tmp_path: Path) -> None:
    weights = training_script(tmp_path, foreign.lavila_classifier())
    path = tmp_path / "checkpoint.pt"
    model = build_model(followed("divided classifier", path))
    assert not init_from(path, model).fresh
    assert torch.equal(model.state_dict()["heads.noun.weight"], weights["fc_cls.1.weight"])
    swapped = replace(followed("divided classifier", path), heads={"noun": 4, "verb": 3, "action": 5})
    refused(path, swapped, "heads have")


def grid_of(config: ModelConfig, **change: int) -> ModelConfig:
    encoder = encoder_of(config)
    return replace(config, video=replace(encoder, grid=replace(encoder.grid, **change)))


def test_learned_positions_are_compared_by_shape_and_interpolated(tmp_path: Path) -> None:
    """4 x 4 cells are as many as 2 x 8, and another table."""
    weights = training_script(tmp_path, foreign.avion(flash=True, fast=True))
    path = tmp_path / "checkpoint.pt"
    flat = build_model(grid_of(foreign.VIT_DUAL, height_px=16, width_px=64))
    report = init_from(path, flat)
    assert "positions of 3 x 4 x 4 cubes interpolated to 3 x 2 x 8" in report.notes
    assert not torch.equal(
        flat.state_dict()["video.embedding.position_cells_GD"], weights["visual.positional_embedding"][1:]
    )
    longer = build_model(grid_of(foreign.VIT_DUAL, frames=6, height_px=48, width_px=48))
    assert "positions of 3 x 4 x 4 cubes interpolated to 6 x 6 x 6" in init_from(path, longer).notes
    ends = longer.state_dict()["video.embedding.temporal_UD"][[0, -1]]
    assert torch.equal(ends, weights["visual.temporal_embedding"][[0, -1]])
    same = build_model(foreign.VIT_DUAL)
    assert not init_from(path, same).notes
    assert torch.equal(
        same.state_dict()["video.embedding.position_cells_GD"], weights["visual.positional_embedding"][1:]
    )


def test_our_own_positions_know_their_rows_and_columns(tmp_path: Path) -> None:
    own(tmp_path, grid_of(foreign.VIT_DUAL, height_px=16, width_px=64))
    report = init_from(tmp_path, build_model(foreign.VIT_DUAL))
    assert "positions of 3 x 2 x 8 cubes interpolated to 3 x 4 x 4" in report.notes


@pytest.mark.parametrize("source", ["videomae", "hf videomae", "own mae"])
def test_fixed_positions_of_other_clips_are_refused_unless_named(source: str, tmp_path: Path) -> None:
    SOURCES[source][0](tmp_path)
    path = checkpoint_in(tmp_path)
    config = followed("mae vit", path)
    init_from(path, build_model(config))
    other = replace(config, grid=replace(foreign.MAE.grid, height_px=16, width_px=64))
    refused(path, other, "fixed positions are of 2 x 4 x 4 cubes in the weights' training, of 2 x 2 x 8 in the model")
    assert "2 x 2 x 8" in str(init_from(path, build_model(other), accept=("positions",)))


def test_a_joint_space_of_another_width(tmp_path: Path) -> None:
    training_script(tmp_path, foreign.avion(flash=True, fast=True))
    wide = replace(foreign.VIT_DUAL, joint=foreign.E + 8)
    refused(tmp_path / "checkpoint.pt", wide, "the joint space is 24 wide in the weights, 32 in the model")
    report = init_from(tmp_path / "checkpoint.pt", build_model(wide), accept=("projections",))
    assert report.fresh == ("logit_scale", "text_projection_DE", "video_projection_DE")
    openai(tmp_path)
    path = tmp_path / "checkpoint.pt"
    images = init_from(path, build_model(follow(wide, recognise(path).traits)))
    assert (images.fresh, len(images.left)) == (report.fresh, 3)


def test_a_shorter_context_is_cut_and_a_longer_refused(tmp_path: Path) -> None:
    weights = training_script(tmp_path, foreign.avion(flash=True, fast=True))
    path = tmp_path / "checkpoint.pt"
    short = replace(foreign.VIT_DUAL, text=replace(foreign.TEXT, context=8))
    model = build_model(short)
    assert "text positions cut from 12 to 8" in init_from(path, model).notes
    assert torch.equal(model.state_dict()["text.position_LD"], weights["textual.positional_embedding"][:8])
    refused(path, replace(short, text=replace(foreign.TEXT, context=77)), "context .* is 12 in them, .* model's 77")
    refused(path, replace(short, text=replace(foreign.TEXT, vocabulary=61)), "vocabulary .* is 60 in them, .* 61")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"width": 32}, "width of the video encoder is 48 in them, wanted the model's 32"),
        ({"depth": 3}, "depth of the video encoder is 2 in them, wanted the model's 3"),
        ({"mlp_ratio": 4.0}, "hidden width of the video encoder is 96 in them, wanted the model's 192"),
        ({"layer_scale": 0.1}, "layer scale .*is 0.1, wanted none"),
    ],
)
@pytest.mark.parametrize("source", ["avion", "hf clip"])
def test_another_size_is_said_before_any_name(
    source: str, change: dict[str, object], line: str, tmp_path: Path
) -> None:
    SOURCES[source][0](tmp_path)
    path = checkpoint_in(tmp_path)
    refused(path, with_stack(followed("dual", path), "video", **change), line)


def test_another_patch_size_is_said(tmp_path: Path) -> None:
    training_script(tmp_path, foreign.avion(flash=True, fast=True))
    refused(tmp_path / "checkpoint.pt", grid_of(foreign.VIT_DUAL, patch_px=16), "patch size .* is 8 in them, .* 16")


def test_the_moving_average_is_taken_when_asked_for(tmp_path: Path) -> None:
    average = {name: tensor + 1 for name, tensor in random_weights(foreign.videomae_classifier()).items()}
    weights = videomae(tmp_path, foreign.videomae_classifier(), model_ema=wrapped(average))
    path = tmp_path / "checkpoint.pt"
    model = build_model(foreign.MAE_CLASSIFIER)
    init_from(path, model)
    assert torch.equal(model.state_dict()["encoder.norm.weight"], weights["fc_norm.weight"])
    report = init_from(path, model, averaged=True)
    assert torch.equal(model.state_dict()["encoder.norm.weight"], average["fc_norm.weight"])
    assert "the moving average" in report.notes
    videomae(tmp_path, foreign.videomae_classifier())
    refused(path, foreign.MAE_CLASSIFIER, "hold no moving average, wanted one under model_ema", averaged=True)
    torch.save({"epoch": 1, "state_dict_ema": average}, path)
    assert "the moving average" in init_from(path, model).notes


def test_wrappers_in_any_order_go(tmp_path: Path) -> None:
    weights = random_weights(foreign.videomae())
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        torch.save({"model": {prefix + name: tensor for name, tensor in weights.items()}}, tmp_path / "x.pt")
        assert read_checkpoint(tmp_path / "x.pt").weights.keys() == weights.keys()


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.float16(0.5), np.int64(3), np.bool_(1)])
def test_numbers_of_numpy_are_plain_values(number: object, tmp_path: Path) -> None:
    weights = training_script(tmp_path, foreign.avion_classifier(), best_acc1=number)
    assert read_checkpoint(tmp_path / "checkpoint.pt").weights.keys() == weights.keys()


def test_numbers_that_numpy_1_has_pickled_are_plain_too(tmp_path: Path) -> None:
    """NumPy 1 named the same function `numpy.core.multiarray.scalar`: AVION's and LaViLa's files are so."""
    training_script(tmp_path, foreign.avion_classifier())
    new, old = b"cnumpy._core.multiarray\nscalar", b"cnumpy.core.multiarray\nscalar"
    path, legacy = tmp_path / "checkpoint.pt", tmp_path / "legacy.pt"
    torch.save(torch.load(path, weights_only=False), legacy, _use_new_zipfile_serialization=False)
    body = legacy.read_bytes()
    assert body.count(new) == 1
    path.write_bytes(body.replace(new, old))
    report = init_from(path, build_model(foreign.VIT_CLASSIFIER))
    assert report.kind == "AVION"


@pytest.mark.parametrize("ndim", [0, 1])
def test_the_scale_loads_in_both_forms(ndim: int, tmp_path: Path) -> None:
    weights = {name: t.reshape((1,) * ndim) if name == "logit_scale" else t
               for name, t in random_weights(foreign.avion(flash=True, fast=True)).items()}  # fmt: skip
    torch.save({"state_dict": weights}, tmp_path / "x.pt")
    model = build_model(foreign.VIT_DUAL)
    init_from(tmp_path / "x.pt", model)
    assert torch.equal(model.state_dict()["logit_scale"], weights["logit_scale"].reshape(1))
    old = {name: t.reshape(()) if name == "logit_scale" else t for name, t in model.state_dict().items()}
    build_model(foreign.VIT_DUAL).load_state_dict(old)


def test_files_that_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_weights(path, {"conv.weight": torch.ones(2), "conv.bias": torch.ones(2)})
    refused(path, foreign.MAE, r"are of no known kind \(they begin conv\.bias, conv\.weight\), wanted CLIP, open_clip")
    write_weights(path, build_model(foreign.MAE).state_dict())
    refused(path, foreign.MAE, "framefeed's without their config.json, wanted the folder")
    write_weights(path, {"visual.layer1.0.conv1.weight": torch.ones(2)})
    refused(path, foreign.MAE, "are CLIP's ResNet, wanted one with a vision transformer")
    write_weights(path, random_weights(foreign.transformers_clip()))
    refused(path, foreign.VIT_DUAL, "transformers CLIP without config.json beside them, wanted the whole folder")


def test_an_activation_that_no_model_has_is_refused(tmp_path: Path) -> None:
    hugging_face(tmp_path, hf_clip())
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu_new"
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused(tmp_path, foreign.VIT_DUAL, "were trained with gelu_new, which no model here has, wanted gelu or")


def test_a_checkpoint_that_lacks_a_weight_or_has_a_stranger_changes_nothing(tmp_path: Path) -> None:
    weights = random_weights(foreign.avion(flash=True, fast=True))
    path = tmp_path / "x.safetensors"
    write_weights(path, {name: tensor for name, tensor in weights.items() if name != "visual.ln_post.bias"})
    refused(path, foreign.VIT_DUAL, r"lacks visual\.ln_post\.bias")
    write_weights(path, weights | {"visual.stranger": torch.ones(1)})
    refused(path, foreign.VIT_DUAL, r"no place for visual\.stranger")


def test_models_without_a_video_encoder_and_unknown_exceptions_are_refused(tmp_path: Path) -> None:
    openai(tmp_path)
    refused(tmp_path / "checkpoint.pt", foreign.TEXT, "Text has no video encoder")
    with pytest.raises(NotForModelError, match="Linear has no configuration"):
        init_from(tmp_path / "checkpoint.pt", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="accept has activations, wanted some of activation, norm_eps"):
        init_from(tmp_path / "checkpoint.pt", nn.Linear(2, 2), accept=("activations",))  # type: ignore[arg-type]


def test_the_report_is_one_line(tmp_path: Path) -> None:
    videomae(tmp_path, foreign.videomae())
    report: InitReport = init_from(tmp_path / "checkpoint.pt", build_model(foreign.MAE_CLASSIFIER))
    assert re.fullmatch(r"\d+ weights from VideoMAE .*checkpoint.pt; fresh: heads; left: bridge, .*", str(report))
