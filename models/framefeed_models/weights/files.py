"""Files of weights: safetensors, and torch's pickles as far as they hold nothing but tensors and plain values.

It knows files, no names and no models. Nothing in a file is ever executed.
"""

from __future__ import annotations

import argparse
import codecs
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from framefeed_models.weights.checkpoint_folder import CheckpointError, checkpoint_in, read_whole
from framefeed_models.weights.torch_archive import ArchiveError, CarriesCode, Plain, load_archive

FOLDER_FILE = "model.safetensors"
_INSIDE = ("state_dict", "model", "module", "model_state_dict")
_AVERAGED = ("model_ema", "state_dict_ema", "ema", "ema_state_dict")
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel's, torch.compile's


def _number(kind: np.dtype[np.generic], data: bytes) -> np.generic:
    """What NumPy's `scalar` makes, of the kinds below only: that takes as much memory as a kind claims to need."""
    if kind.kind not in "biuf" or kind.itemsize > 8:
        raise ValueError("it holds a value of NumPy that is no number")
    return np.frombuffer(data, kind, count=1)[0]  # type: ignore[no-any-return]


# What AVION's and LaViLa's checkpoints keep their best score in. NumPy 1 had another name for the same function.
_PLAIN: tuple[Plain, ...] = (
    argparse.Namespace,
    np.dtype,
    (codecs.encode, "_codecs.encode"),  # of bytes, as old pickles spell them
    (_number, "numpy._core.multiarray.scalar"),
    (_number, "numpy.core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
)


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
    """The tensors in a .safetensors or torch file, in a folder's model.safetensors, or in a run's checkpoint, on the
    CPU.

    Checkpoints that keep them under `state_dict`, `model` or `module` beside other things give them out of there, or
    with `averaged` their moving average (`model_ema`, `state_dict_ema`), which is taken too where it is all there is;
    prefixes of DistributedDataParallel and torch.compile go. Raises WeightsFileError for a file that cannot be read,
    holds no tensors or no average, or could be read only by executing what is in it.
    """
    run = checkpoint_in(path)
    path = path / FOLDER_FILE if path.is_dir() and run is None else path
    try:
        body: object
        if run is not None:
            body = _of_run(run, averaged=averaged)
        else:
            body = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except CheckpointError as error:
        raise WeightsFileError(f"weights {run} are no whole checkpoint: {error}") from None
    except FileNotFoundError:
        raise WeightsFileError(f"weights {path} do not exist") from None
    except (OSError, SafetensorError) as error:
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
    """Write tensors as safetensors, readable as any new file is. Raises WeightsFileError if it cannot be written."""
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, path, {"format": "pt"}
        )
        path.chmod(mode)  # the library's are its owner's alone
    except (OSError, SafetensorError) as error:
        raise WeightsFileError(f"weights {path} cannot be written: {_first_line(error)}") from None


def _of_run(checkpoint: Path, *, averaged: bool) -> dict[str, object]:
    """The weights in a run's checkpoint, or with `averaged` their moving average and what is not averaged."""
    weights = read_whole(checkpoint, prefix="model.")
    average = read_whole(checkpoint, prefix="average.") if averaged else {}
    return {"model": weights, **({"model_ema": {**weights, **average}} if average else {})}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Its header says how long each tensor is, and the library checks that against the file."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise WeightsFileError(f"weights {path} cannot be read: it is no regular file")
    return load_file(path)


def _read_torch(path: Path) -> object:
    """An archive of torch.save, which may hold options of argparse and numbers of NumPy too: plain values."""
    try:
        return load_archive(path, old_format=True, plain=_PLAIN)
    except CarriesCode as error:
        wanted = "wanted safetensors, or a plain state dict of the same weights"
        raise WeightsFileError(f"weights {path} are refused: {error}; {wanted}") from None
    except ArchiveError as error:
        raise WeightsFileError(f"weights {path} cannot be read: {error}") from None


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
