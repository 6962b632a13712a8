"""Models as ONNX: the same answers in onnxruntime for any number of clips, and int8 whose loss is measured and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from framefeed.errors import BadInput, FramefeedError
from framefeed_models.pixel_norm import IMAGENET, LAVILA
from framefeed_models.timesformer import TimeSformer, TimeSformerConfig
from tests.unit.trainer.small_tasks import CPU, GRID, STACK, TASKS
from tests.unit.trainer.stored_runs import save
from tests.unit.trainer.test_export import recipe_config
from trainer_client.training.checkpoints import Checkpoints
from trainer_client.training.export import Export
from trainer_client.training.onnx_export.graphs import Graph, graphs_of, made_clips
from trainer_client.training.onnx_export.onnx_file import Likeness, OnnxFolder, onnx_files
from trainer_client.training.run_state import TrainState

MODELS: dict[str, Callable[[], Any]] = {
    "mae": lambda: TASKS["mae"](CPU).model,
    "cmae": lambda: TASKS["cmae"](CPU).model,
    "contrastive": lambda: TASKS["contrastive"](CPU).model,
    "classify": lambda: TASKS["classify"](CPU).model,
    "timesformer": lambda: TimeSformer(
        TimeSformerConfig(grid=replace(GRID, tubelet_frames=1), stack=replace(STACK, depth=1))
    ),
}


def graphs(name: str) -> tuple[Graph, ...]:
    torch.manual_seed(3)
    model = MODELS[name]().eval()
    return graphs_of(model, model.config, IMAGENET)


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_says_what_its_model_says(name: str) -> None:
    torch.manual_seed(3)
    model = MODELS[name]().eval()
    for graph in graphs_of(model, model.config, LAVILA):
        found = graph.answers(graph.inputs)
        assert tuple(found) == graph.outputs
        assert all(len(rows) == 2 for rows in found.values())
        assert graph.are_logits == (name == "classify")
    if name == "classify":
        clips = graph.inputs["clips"]
        mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (LAVILA.mean, LAVILA.std))
        normalised = (clips.movedim(-1, 1).float() / 255 - mean) / std
        with torch.no_grad():
            wanted = model(normalised)
        assert all(torch.allclose(found[head], wanted[head], atol=1e-5) for head in wanted)


def test_made_clips_move_and_have_structure() -> None:
    clips = made_clips(GRID, count=3).float()
    assert clips.shape == (3, GRID.frames, GRID.height_px, GRID.width_px, 3)
    assert (clips.diff(dim=1).abs().mean() > 1).item()
    assert not torch.equal(clips[0], clips[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mae", "contrastive", "timesformer"])
def test_onnxruntime_agrees_for_any_number_of_clips(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made = graphs(name)
    with onnx_files(tmp_path / "out") as files:
        for graph in made:
            assert files.write(graph)[1].difference <= 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "nothing else is left"
    for graph in made:
        session = runtime.InferenceSession(tmp_path / "out" / f"{graph.name}.onnx")
        five = {key: torch.cat([tensor, tensor.flip(0), tensor])[:5] for key, tensor in graph.inputs.items()}
        if "tokens" in five:
            five["tokens"] = torch.randint(1, 32, (5, 6))
        found = session.run(list(graph.outputs), {key: tensor.numpy() for key, tensor in five.items()})
        for array, wanted in zip(found, graph.answers(five).values(), strict=True):
            assert np.allclose(array, wanted.numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_run_is_exported_with_int8_and_its_loss_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    torch.manual_seed(1)
    model = TASKS["classify"](CPU).model
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    kept = Checkpoints(tmp_path / "run", config=recipe_config(model.config), keep=1)
    save(kept, TrainState(step=1, tensors=tensors, data={}))
    export = Export(checkpoint=tmp_path / "run", out=tmp_path / "out", format="onnx", int8=True)
    export.run()
    first, whole, small = capsys.readouterr().out.splitlines()
    assert "weights after step 1" in first
    assert whole.startswith("classifier.onnx: ")
    assert "of the model in onnxruntime" in whole
    assert small.startswith("classifier.int8.onnx: ")
    assert "the same class first for" in small
    assert "on 64 made clips: --measure-on ROOT says it for your own" in small
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"classifier.onnx", "classifier.int8.onnx"}
    with pytest.raises(BadInput, match=r"has a classifier\.onnx and a classifier\.int8\.onnx already"):
        export.run()


def test_a_graph_that_says_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    likeness = Likeness(difference=0.5, cosine=0.9, agreement=None)
    monkeypatch.setattr(OnnxFolder, "likeness", lambda *_: likeness)
    monkeypatch.setattr(torch.onnx, "export", lambda _module, _inputs, path, **_: path.touch())
    with (
        pytest.raises(FramefeedError, match=r"onnxruntime says something else than the model, by 5\.0e-01"),
        onnx_files(tmp_path / "out") as files,
    ):
        files.write(graphs("classify")[0])
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(BadInput, match=r"pip install 'framefeed\[onnx\]'"), onnx_files(tmp_path / "out"):
        pass
