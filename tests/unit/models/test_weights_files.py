"""Files of weights and models in folders: what comes back, what transformers makes of it, what is refused unread."""

from __future__ import annotations

import argparse
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from framefeed_models.classifier import Classifier
from framefeed_models.cmae import CMAEConfig
from framefeed_models.videomae import PRESETS, VideoMAE
from framefeed_models.vit import VideoViT
from framefeed_models.weights.config_json import ModelConfig, build_model, config_from_json, config_to_json
from framefeed_models.weights.files import WeightsFileError, read_weights, write_weights
from framefeed_models.weights.init_from import init_from
from framefeed_models.weights.key_table import WeightsMismatchError
from framefeed_models.weights.saved_model import load_model, save_for_transformers, save_model
from tests.unit.models import foreign_checkpoints as foreign
from tests.unit.models.parity import randomise

CONFIGS: list[ModelConfig] = [
    foreign.MAE,
    PRESETS["tiny"],
    CMAEConfig(mae=foreign.MAE),
    foreign.MAE_CLASSIFIER,
    foreign.VIT_DUAL,
    foreign.TIMESFORMER_DUAL,
    foreign.TIMESFORMER_CLASSIFIER,
    foreign.TEXT,
]
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b.c": torch.ones((), dtype=torch.bfloat16)}


class Evil:
    """Unpickling it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_model_comes_back_from_its_folder(config: ModelConfig, tmp_path: Path) -> None:
    model = build_model(config)
    randomise(model)
    save_model(tmp_path / "new" / "folder", model.state_dict(), config)
    again, seen = load_model(tmp_path / "new" / "folder")
    assert seen == config
    assert type(again) is type(model)
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_a_configuration_is_json_with_nothing_unknown() -> None:
    saved = json.loads(json.dumps(config_to_json(foreign.MAE)))
    assert config_from_json(saved) == foreign.MAE
    del saved["encoder"]["checkpointing"]
    assert config_from_json(saved) == foreign.MAE, "what is missing keeps its default"
    for bad, complaint in (
        (saved | {"widht": 3}, "VideoMAEConfig has no widht"),
        (saved | {"kind": "Path"}, "kind is 'Path', wanted one of ViTConfig"),
        (saved["grid"], "configuration is a TubeletGrid, wanted one of"),
        ({"kind": "VideoMAEConfig"}, "missing 3 required"),
        (saved | {"encoder": saved["encoder"] | {"heads": 5}}, "wanted a multiple of its 5 heads"),
        ("text", "configuration is a str"),
    ):
        with pytest.raises(ValueError, match=complaint):
            config_from_json(bad)
    with pytest.raises(ValueError, match="configuration is a PosixPath"):
        config_to_json(Path())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin"])
@pytest.mark.parametrize("inside", ["", "state_dict", "model", "module"])
def test_tensors_come_out_of_any_file(name: str, inside: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        write_weights(path, TENSORS)
    else:
        wrapped = {f"module.{key}": tensor for key, tensor in TENSORS.items()}
        rest = {"epoch": 3, "args": argparse.Namespace(lr=1e-3, name="x"), "best_acc1": np.float64(0.5)}
        torch.save({inside: wrapped, **rest} if inside else TENSORS, path)
    seen = read_weights(path)
    assert seen.keys() == TENSORS.keys()
    assert all(torch.equal(seen[key], tensor) and seen[key].dtype == tensor.dtype for key, tensor in TENSORS.items())


@pytest.mark.parametrize("nested", [False, True])
def test_nothing_in_a_file_is_executed(nested: bool, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pt"
    evil = Evil(trace)
    torch.save({"state_dict": TENSORS, "args": evil} if nested else evil, path)
    with pytest.raises(WeightsFileError, match=r"evil\.pt are refused: it holds more than tensors") as caught:
        read_weights(path)
    assert not trace.exists()
    assert "\n" not in str(caught.value)
    path.write_bytes(pickle.dumps(evil))
    with pytest.raises(WeightsFileError, match=r"evil\.pt (are refused|cannot be read)"):
        read_weights(path)
    assert not trace.exists()


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    """OpenAI's own downloads are such: code and weights in one."""
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "clip.pt"))
    with pytest.raises(WeightsFileError, match=r"clip\.pt are refused: a TorchScript archive carries code; wanted"):
        read_weights(tmp_path / "clip.pt")


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(WeightsFileError, match=f"{name} do not exist"):
            read_weights(tmp_path / name)
    for name in ("broken.pt", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"\x80\x02 no weights at all")
        with pytest.raises(WeightsFileError, match=name) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    for body in ({}, {"epoch": 3}, {"a": torch.ones(1), "epoch": 3}, [1, 2], torch.ones(1)):
        torch.save(body, tmp_path / "other.pt")
        with pytest.raises(WeightsFileError, match=r"other\.pt hold no tensors, wanted a dictionary of tensors"):
            read_weights(tmp_path / "other.pt")
    with pytest.raises(WeightsFileError, match=r"cannot be written"):
        write_weights(tmp_path / "no" / "folder.safetensors", TENSORS)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match=r"config\.json cannot be read: No such file"):
        load_model(tmp_path)
    model = build_model(foreign.MAE)
    save_model(tmp_path, model.state_dict(), foreign.MAE)
    config = json.loads((tmp_path / "config.json").read_text())
    for text, complaint in (
        ("{", "is damaged"),
        ('{"model_type": "videomae"}', "is none of ours, wanted framefeed_model 1"),
        (json.dumps({"framefeed_model": 1}), "is damaged: 'config'"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(WeightsFileError, match=complaint):
            load_model(tmp_path)
    config["config"]["encoder"]["depth"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsMismatchError, match=r"VideoMAE: lacks encoder\.stack\.blocks\.2\."):
        load_model(tmp_path)
    with pytest.raises(WeightsFileError, match="cannot be written"):
        save_model(tmp_path / "config.json" / "below", model.state_dict(), foreign.MAE)


def clips() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (torch.rand(2, 3, 4, 32, 32, generator=generator) - mean) / std


def test_transformers_pretrains_with_our_folder(tmp_path: Path) -> None:
    ours = VideoMAE(foreign.MAE).eval()
    randomise(ours)
    save_for_transformers(tmp_path, ours.state_dict(), foreign.MAE)
    theirs, loading = transformers.VideoMAEForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    mask = torch.rand(2, 32, generator=torch.Generator().manual_seed(2)).argsort(dim=1) < 29
    with torch.no_grad():
        seen = ours(clips(), mask)
        wanted = theirs.eval()(clips().transpose(1, 2), bool_masked_pos=mask)
    assert (seen.predictions_BMPC.flatten(2) - wanted.logits).abs().max() <= 1e-4
    assert abs(seen.loss - wanted.loss) <= 1e-4


def test_transformers_encodes_with_our_folder(tmp_path: Path) -> None:
    ours = VideoViT(foreign.MAE.vit).eval()
    randomise(ours)
    save_for_transformers(tmp_path, ours.state_dict(), foreign.MAE.vit)
    theirs, loading = transformers.VideoMAEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    with torch.no_grad():
        wanted = theirs.eval()(clips().transpose(1, 2)).last_hidden_state
        assert (ours(clips()) - wanted).abs().max() <= 1e-4


def test_transformers_classifies_with_our_folder(tmp_path: Path) -> None:
    ours = Classifier(foreign.MAE_CLASSIFIER).eval()
    randomise(ours)
    save_for_transformers(tmp_path, ours.state_dict(), foreign.MAE_CLASSIFIER)
    theirs, loading = transformers.VideoMAEForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    with torch.no_grad():
        wanted = theirs.eval()(clips().transpose(1, 2)).logits
        assert (ours(clips())["action"] - wanted).abs().max() <= 1e-4
    assert theirs.config.num_labels == 5


@pytest.mark.parametrize("names", ["as saved", "q_bias"])
def test_a_model_that_transformers_has_saved_comes_in(names: str, tmp_path: Path) -> None:
    """Whatever names this version saves under; published files have q_bias."""
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, use_mean_pooling=False, layer_norm_eps=1e-6,
    )  # fmt: skip
    theirs = transformers.VideoMAEForPreTraining(config).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    if names == "q_bias":
        state = {
            name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): tensor
            for name, tensor in theirs.state_dict().items()
        }
        write_weights(tmp_path / "model.safetensors", state)
    ours = VideoMAE(foreign.MAE).eval()
    init_from(tmp_path, ours)
    mask = torch.rand(2, 32, generator=torch.Generator().manual_seed(2)).argsort(dim=1) < 20
    with torch.no_grad():
        difference = ours(clips(), mask).loss - theirs(clips().transpose(1, 2), bool_masked_pos=mask).loss
    assert abs(difference) <= 1e-4


def test_what_transformers_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = build_model(PRESETS["tiny"])
    with pytest.raises(ValueError, match="positions is 'grid', wanted 'flat'"):
        save_for_transformers(tmp_path / "out", model.state_dict(), PRESETS["tiny"])
    wide = replace(foreign.MAE, grid=replace(foreign.MAE.grid, width_px=64))
    with pytest.raises(ValueError, match="square, seen 32 x 64"):
        save_for_transformers(tmp_path / "out", build_model(wide).state_dict(), wide)
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_way_of_weights_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "model.safetensors").symlink_to(other)
    write_weights(tmp_path / "model.safetensors", {"w": torch.ones(3)})
    assert other.read_text() == "mine"
    assert not (tmp_path / "model.safetensors").is_symlink()
    assert torch.equal(read_weights(tmp_path / "model.safetensors")["w"], torch.ones(3))
