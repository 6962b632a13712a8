"""The verb `export`: a run's weights as files that others load; it knows recipes' configurations, not their training.

framefeed export runs/mae --out mae-base                             # model.safetensors and config.json
framefeed export runs/mae --out hub --format transformers            # VideoMAEForPreTraining.from_pretrained("hub")
framefeed export runs/mae --out hub --format transformers --part encoder    # VideoMAEModel.from_pretrained("hub")
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
from models.videomae import VideoMAEConfig
from models.vit import ViTConfig
from models.weights.checkpoint_folder import CheckpointError, checkpoint_in, read_header, read_whole
from models.weights.config_json import ModelConfig, config_from_json
from models.weights.init_from import encoder_prefix
from models.weights.key_table import Weights
from models.weights.recognise import saved_pixels
from models.weights.saved_model import save_for_transformers, save_model
from models.weights.traits import encoder_of
from trainer_client.training.checkpoints import config_of, old_file
from trainer_client.training.run_state import MODEL


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's weights as safetensors or for transformers."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, whose newest checkpoint is taken, or one checkpoint (step_*)."""
    out: Path
    """Folder to write model.safetensors and config.json into: a new one, or one without them."""
    format: Literal["framefeed", "transformers"] = "framefeed"
    """framefeed: our names, for models.weights.saved_model.load_model. transformers: for its from_pretrained."""
    part: Literal["model", "encoder"] = "model"
    """model: all of it, decoder included. encoder: what fine-tuning and feature extraction take."""

    def run(self) -> None:
        """Read, convert and write; blocks for as long as the files take. Raises BadInput, with nothing written, for
        a run that is none, a model that the format cannot hold, or a folder that is taken."""
        path = self._path()
        if taken := [name for name in ("config.json", "model.safetensors") if (self.out / name).exists()]:
            raise BadInput(f"--out {self.out} has a {' and a '.join(taken)} already; wanted a new folder")
        try:
            header = read_header(path)
            options, trained = config_of(header), read_whole(path, prefix=MODEL)
        except CheckpointError as error:
            raise BadInput(f"checkpoint {path} cannot be read: {error}") from None
        try:
            config, weights = self._chosen(model_config(options), trained)
            if self.format == "transformers":
                if not isinstance(config, VideoMAEConfig | ViTConfig):
                    raise ValueError(f"model is a {type(config).__name__}, and transformers has VideoMAE's alone")
                save_for_transformers(self.out, weights, config)
            else:
                save_model(self.out, weights, config, pixels=saved_pixels(path))
        except ValueError as error:
            raise BadInput(f"export of {path}: {error}") from None
        count = sum(tensor.numel() for tensor in weights.values())
        Console().print(f"{path}: {count:,} weights after step {header.step} to {self.out}", highlight=False)

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

    def _chosen(self, config: ModelConfig, weights: Weights) -> tuple[ModelConfig, Weights]:
        if self.part == "model":
            return config, weights
        return encoder_of(config), encoder_weights(weights, prefix=encoder_prefix(config))


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
