"""Files of weights: safetensors, and torch's pickles as far as they hold nothing but tensors and plain values.

It knows files, no names and no models. Nothing in a file is ever executed.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FOLDER_FILE = "model.safetensors"
_INSIDE = ("state_dict", "model", "module", "model_state_dict")
_AVERAGED = ("model_ema", "state_dict_ema", "ema", "ema_state_dict")
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel's, torch.compile's
# What AVION's and LaViLa's checkpoints keep their best score in: plain numbers, built by NumPy's own functions.
# NumPy 1 pickled `scalar` under another name of the same function.
_NUMBER = cast("Callable[..., object]", np.float64(0.0).__reduce__()[0])
_PLAIN: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    argparse.Namespace,
    np.dtype,
    _NUMBER,
    (_NUMBER, "numpy.core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
]


class WeightsFileError(ValueError):
    """A file of weights that cannot be read or written; one line that says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The tensors of a file, on the CPU, and the options of the script that wrote it, as far as they are beside them.

    `averaged` says that the tensors are the moving average of the weights.
    """

    weights: dict[str, Tensor]
    options: Mapping[str, object]
    averaged: bool = False


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors that `read_checkpoint` reads, and its errors."""
    return read_checkpoint(path).weights


def read_checkpoint(path: Path, *, averaged: bool = False) -> Checkpoint:
    """The tensors in a .safetensors or torch file, or in a folder's model.safetensors, on the CPU.

    Checkpoints that keep them under `state_dict`, `model` or `module` beside other things give them out of there, or
    with `averaged` their moving average (`model_ema`, `state_dict_ema`), which is taken too where it is all there is;
    prefixes of DistributedDataParallel and torch.compile go. Raises WeightsFileError for a file that cannot be read,
    holds no tensors or no average, or could be read only by executing what is in it.
    """
    path = path / FOLDER_FILE if path.is_dir() else path
    try:
        body: object = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except FileNotFoundError:
        raise WeightsFileError(f"weights {path} do not exist") from None
    except (OSError, SafetensorError, EOFError, KeyError, TypeError) as error:
        raise WeightsFileError(f"weights {path} cannot be read: {_first_line(error)}") from None
    average = _inside(body, _AVERAGED)
    if averaged and not average:
        raise WeightsFileError(f"weights {path} hold no moving average, wanted one under {', '.join(_AVERAGED)}")
    weights = average if averaged else _tensors(body) or average
    if not weights:
        wanted = f"a dictionary of tensors, or one under {', '.join(_INSIDE)}"
        raise WeightsFileError(f"weights {path} hold no tensors, wanted {wanted}")
    options = body.get("args") if isinstance(body, Mapping) else None
    return Checkpoint(
        weights=weights,
        options=vars(options) if isinstance(options, argparse.Namespace) else {},
        averaged=weights is average,
    )


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors. Raises WeightsFileError if the file cannot be written."""
    try:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path, {"format": "pt"}
        )
    except (OSError, SafetensorError) as error:
        raise WeightsFileError(f"weights {path} cannot be written: {_first_line(error)}") from None


def _read_pickle(path: Path) -> object:
    """torch's restricted unpickler, which also takes options of argparse and numbers of NumPy: plain values."""
    try:
        with torch.serialization.safe_globals(_PLAIN):
            body: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = f"it holds more than tensors and plain values ({_first_line(error)})"
        raise WeightsFileError(
            f"weights {path} are refused: {why}; wanted safetensors, or a plain state dict"
        ) from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            why = "a TorchScript archive carries code"
            raise WeightsFileError(
                f"weights {path} are refused: {why}; wanted the same weights as safetensors"
            ) from None
        raise WeightsFileError(f"weights {path} cannot be read: {_first_line(error)}") from None
    return body


def _inside(body: object, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors under the first of these names that there is."""
    if not isinstance(body, Mapping):
        return {}
    return next((_tensors(body[name]) for name in names if isinstance(body.get(name), Mapping)), {})


def _tensors(body: object) -> dict[str, Tensor]:
    if not isinstance(body, Mapping):
        return {}
    if any(isinstance(body.get(name), Mapping) for name in _INSIDE):
        return _inside(body, _INSIDE)
    weights = {str(name): value for name, value in body.items() if isinstance(value, Tensor)}
    if len(weights) != len(body):
        return {}
    while weights and (prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in weights)), "")):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip() or type(error).__name__
