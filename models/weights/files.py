"""Files of weights: safetensors, and torch's pickles as far as they hold nothing but tensors and plain values.

It knows files, no names and no models. Nothing in a file is ever executed.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.weights.torch_archive import ArchiveError, CarriesCode, load_archive

FOLDER_FILE = "model.safetensors"
_INSIDE = ("state_dict", "model", "module", "model_state_dict")


class WeightsFileError(ValueError):
    """A file of weights that cannot be read or written; one line that says which and why."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors or torch file, or in a folder's model.safetensors, on the CPU.

    Checkpoints that keep them under `state_dict`, `model` or `module` beside other things give them out of there, and
    DistributedDataParallel's `module.` goes. Raises WeightsFileError for a file that cannot be read, holds no tensors,
    or could be read only by executing what is in it.
    """
    path = path / FOLDER_FILE if path.is_dir() else path
    try:
        body: object = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except FileNotFoundError:
        raise WeightsFileError(f"weights {path} do not exist") from None
    except (OSError, SafetensorError) as error:
        raise WeightsFileError(f"weights {path} cannot be read: {_first_line(error)}") from None
    weights = _tensors(body)
    if not weights:
        wanted = f"a dictionary of tensors, or one under {', '.join(_INSIDE)}"
        raise WeightsFileError(f"weights {path} hold no tensors, wanted {wanted}")
    return weights


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors. Raises WeightsFileError if the file cannot be written."""
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path, {"format": "pt"}
        )
    except (OSError, SafetensorError) as error:
        raise WeightsFileError(f"weights {path} cannot be written: {_first_line(error)}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Its header says how long each tensor is, and the library checks that against the file."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise WeightsFileError(f"weights {path} cannot be read: it is no regular file")
    return load_file(path)


def _read_torch(path: Path) -> object:
    try:
        return load_archive(path, old_format=True)
    except CarriesCode as error:
        wanted = "wanted safetensors, or a plain state dict of the same weights"
        raise WeightsFileError(f"weights {path} are refused: {error}; {wanted}") from None
    except ArchiveError as error:
        raise WeightsFileError(f"weights {path} cannot be read: {error}") from None


def _tensors(body: object) -> dict[str, Tensor]:
    if not isinstance(body, Mapping):
        return {}
    for name in _INSIDE:
        if isinstance(body.get(name), Mapping):
            return _tensors(body[name])
    weights = {str(name): value for name, value in body.items() if isinstance(value, Tensor)}
    if len(weights) != len(body):
        return {}
    wrapped = weights and all(name.startswith("module.") for name in weights)
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()} if wrapped else weights


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip() or type(error).__name__
