"""The verb `export`: a run's weights as files that others load; it knows recipes' configurations, not their training.

framefeed export runs/mae --out mae-base                             # model.safetensors and config.json
framefeed export runs/mae --out hub --format transformers            # VideoMAEForPreTraining.from_pretrained("hub")
framefeed export runs/mae --out hub --format transformers --part encoder    # VideoMAEModel.from_pretrained("hub")
framefeed export runs/k400 --out served --format onnx --int8 --measure-on /nfs/chunks   # for onnxruntime and others
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from torch import Tensor

from framefeed.errors import BadInput
from framefeed.whole_files import whole_files
from framefeed_models.cmae import CMAEConfig
from framefeed_models.pixel_norm import IMAGENET, PIXEL_NORMS, PixelNorm
from framefeed_models.weights.checkpoint_folder import CheckpointError, checkpoint_in, read_header, read_whole
from framefeed_models.weights.config_json import ModelConfig, build_model, config_from_json
from framefeed_models.weights.files import WeightsFileError
from framefeed_models.weights.init_from import encoder_prefix
from framefeed_models.weights.key_table import Weights, fill_model
from framefeed_models.weights.recognise import saved_pixels
from framefeed_models.weights.saved_model import save_for_transformers, save_model, why_not_transformers
from framefeed_models.weights.traits import encoder_of
from framefeed_models.weights.videomae import AnyVideoMAE
from trainer_client.beside_weights import find_beside
from trainer_client.datasets.class_file import CLASSES_NAME
from trainer_client.text.narration_bpe import TOKENIZER_NAME
from trainer_client.training.checkpoints import config_of, old_file
from trainer_client.training.onnx_export.graphs import graphs_of
from trainer_client.training.onnx_export.measured_clips import batches_for, check_root
from trainer_client.training.onnx_export.onnx_file import onnx_files
from trainer_client.training.run_state import AVERAGE, MODEL

_ONNX_FILES = ("classifier", "encoder", "text", "video", "videomae")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trained:
    """What is exported: weights of a configuration, the pixels they were trained on, and where they are from."""

    path: Path
    step: int
    config: ModelConfig
    weights: Weights
    pixels: PixelNorm
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's weights: safetensors, transformers or ONNX."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, whose newest checkpoint is taken, or one checkpoint (step_*)."""
    out: Path
    """Folder to write into: a new one, or one without such files."""
    format: Literal["framefeed", "transformers", "onnx"] = "framefeed"
    """framefeed: our names, for framefeed_models.weights.saved_model.load_model. transformers: for its from_pretrained.
    onnx: graphs of uint8 RGB clips, checked with onnxruntime; needs pip install 'framefeed[onnx]'."""
    part: Literal["model", "encoder"] = "model"
    """model: all of it, decoder included. encoder: what fine-tuning and feature extraction take."""
    average: bool = False
    """Take the moving average of the weights."""
    int8: bool = False
    """With onnx: NAME.int8.onnx as well, of 8-bit weights, and how far its answers are from the model's."""
    measure_on: Path | None = None
    """A folder of indexed videos from whose windows int8's loss is measured. Default: made clips, which say less."""

    def run(self) -> None:
        """Read, convert and write; blocks for as long as that takes, a minute or two for onnx. Raises BadInput, with
        nothing written, for a run that is none, a model that the format cannot hold, or a folder that is taken, and
        FramefeedError for a graph that says something else than the model."""
        if (self.int8 or self.measure_on) and self.format != "onnx":
            raise BadInput(f"--{'int8' if self.int8 else 'measure-on'} is for --format onnx, and it is {self.format}")
        if self.measure_on and not self.int8:
            raise BadInput("--measure-on is given without --int8, whose loss it is for")
        if self.measure_on:
            check_root(self.measure_on)
        names: tuple[str, ...] = ("config.json", "model.safetensors")
        if self.format == "onnx":
            names = tuple(f"{name}{end}" for name in _ONNX_FILES for end in (".onnx", ".int8.onnx"))
        if self.part == "model":
            names = (*names, *(path.name for path in self._beside()))
        if taken := [name for name in names if (self.out / name).exists()]:
            raise BadInput(f"--out {self.out} has a {' and a '.join(taken)} already; wanted a new folder")
        trained = self._trained(self._path())
        try:
            with whole_files(self.out) as folder:
                lines = self._write(trained, folder)
                if self.part == "model":
                    for path in self._beside():
                        (folder / path.name).write_bytes(path.read_bytes())
        except OSError as error:
            raise BadInput(f"--out {self.out} cannot be written: {error.strerror or error}") from None
        except WeightsFileError as error:
            raise BadInput(str(error).replace(str(folder), str(self.out))) from None
        except ValueError as error:
            raise BadInput(f"export of {trained.path}: {error}") from None
        count = sum(tensor.numel() for tensor in trained.weights.values())
        first = f"{trained.path}: {count:,} weights after step {trained.step} to {self.out}{trained.note}"
        for line in (first, *lines):
            Console().print(line, highlight=False, markup=False, soft_wrap=True)

    def _beside(self) -> list[Path]:
        """What says which classes the model's numbers are, and which tokens: without it others guess."""
        found = (find_beside(self.checkpoint, name) for name in (CLASSES_NAME, TOKENIZER_NAME))
        return [path for path in found if path is not None]

    def _path(self) -> Path:
        path, wanted = self.checkpoint, "wanted a run's folder with step_*, or one of them"
        if not path.is_dir():
            why = "is a single file, as earlier versions wrote them" if path.exists() else "does not exist"
            raise BadInput(f"checkpoint {path} {why}; {wanted}")
        found = checkpoint_in(path)
        if found is None:
            old = f", and {old_file(path)} of an earlier version, which is not read" if old_file(path) else ""
            raise BadInput(f"{path} holds no checkpoint{old}; {wanted}")
        return found

    def _trained(self, path: Path) -> _Trained:
        try:
            header = read_header(path)
            options, weights = config_of(header), read_whole(path, prefix=MODEL)
            average = read_whole(path, prefix=AVERAGE) if self.average else {}
        except CheckpointError as error:
            raise BadInput(f"checkpoint {path} cannot be read: {error}") from None
        if self.average and not average:
            raise BadInput(f"checkpoint {path} has no moving average (--average-decay was 0); wanted no --average")
        weights |= average
        try:
            config, note = model_config(options), ""
            if self.part == "encoder":
                weights, config = encoder_weights(weights, prefix=encoder_prefix(config)), encoder_of(config)
            elif isinstance(config, CMAEConfig) and self.format == "transformers":
                prefix = encoder_prefix(config).removesuffix("encoder.")
                weights, config = encoder_weights(weights, prefix=prefix), config.mae
                note = ", without CMAE-V's contrastive branch, which transformers does not have"
            pixels = saved_pixels(path) or PIXEL_NORMS.get(str(options.get("pixel_norm")), IMAGENET)
        except ValueError as error:
            raise BadInput(f"export of {path}: {error}") from None
        return _Trained(path=path, step=header.step, config=config, weights=weights, pixels=pixels, note=note)

    def _write(self, trained: _Trained, folder: Path) -> list[str]:
        """Write the files into a folder; what there is to say of them."""
        config, weights = trained.config, trained.weights
        if self.format == "framefeed":
            save_model(folder, weights, config, pixels=trained.pixels)
            return []
        if self.format == "transformers":
            if why := why_not_transformers(config):
                hint = "" if self.part == "encoder" or why_not_transformers(encoder_of(config)) else "; its encoder can"
                raise ValueError(f"transformers cannot hold this model: {why}{hint}")
            assert isinstance(config, AnyVideoMAE)
            save_for_transformers(folder, weights, config, pixels=trained.pixels)
            return []
        return self._write_onnx(trained, folder)

    def _write_onnx(self, trained: _Trained, folder: Path) -> list[str]:
        model = build_model(trained.config).eval().requires_grad_(False)
        fill_model(model, trained.weights)
        lines = []
        with onnx_files(folder) as files:
            for graph in graphs_of(model, trained.config, trained.pixels):
                path, likeness = files.write(graph)
                size = f"{path.stat().st_size / 1e6:.1f} MB"
                lines.append(f"{path.name}: {size}, within {likeness.difference:.0e} of the model in onnxruntime")
                if self.int8:
                    smaller = files.quantise(path)
                    batches, clips = batches_for(graph, encoder_of(trained.config).grid, self.measure_on)
                    lost = files.likeness(smaller, graph, batches)
                    lines.append(f"{smaller.name}: {smaller.stat().st_size / 1e6:.1f} MB, {lost}, on {clips}")
        return lines


def transformers_note(config: ModelConfig) -> str:
    """What a run's user should know before it: why its model cannot become one of transformers; "" if it can."""
    why = why_not_transformers(config.mae if isinstance(config, CMAEConfig) else config)
    if not why:
        return ""
    return f"this model cannot be exported to transformers ({why}); framefeed export writes safetensors and ONNX of it"


def model_config(options: Mapping[str, object]) -> ModelConfig:
    """The model in a run's options, where each of its fields is one. Raises ValueError for options that have none."""
    nested: dict[str, object] = {}
    for name, value in options.items():
        *path, last = name.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})  # type: ignore[assignment]
            if not isinstance(inner, dict):
                raise ValueError(f"{name} is a field of {part}, which is {inner!r}, wanted fields of it alone")
        inner[last] = value
    return config_from_json(nested.get("model"))


def encoder_weights(weights: Weights, *, prefix: str) -> dict[str, Tensor]:
    """The weights of a model's video encoder, under the encoder's own names."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
