"""Reads what torch.save wrote, from a file that anybody may have made: tensors and plain values, no larger than it is.

A torch file is a zip archive of a pickle and of the tensors' bytes. torch.load(weights_only=True) executes nothing in
it, but takes memory for whatever it claims. Here the archive's own directory is checked first: nothing in it is packed,
nothing lies in two entries at once, the pickle names nothing but tensors and plain values. It knows no models.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import stat
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

MAX_FILE_BYTES = 1 << 40
_MAX_ENTRIES = 1 << 17
_MAX_PICKLE_BYTES = 1 << 26
_ZIP = b"PK\x03\x04"
_NAMES = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        "torch Size",
        "torch device",
    }
)

Plain = Callable[..., object] | tuple[Callable[..., object], str]
"""What else a pickle may name, as torch.serialization.safe_globals takes it: itself, or with the name it stands for."""


class ArchiveError(ValueError):
    """A file that is no archive of tensors and plain values; one line that says why, without the file's name."""


class CarriesCode(ArchiveError):
    """It holds more than tensors and plain values."""


def load_archive(
    path: Path, *, limit_bytes: int = MAX_FILE_BYTES, old_format: bool = False, plain: Sequence[Plain] = ()
) -> object:
    """What a file of torch.save holds, on the CPU; with `old_format` one from before torch 1.6 may be, too. Its pickle
    may name what is `plain`, which must not make anything larger than what it is given.

    Raises OSError where the file cannot be opened, is no regular one or is larger than `limit_bytes`, ArchiveError for
    all else. Takes no more memory than twice the file's size.
    """
    with opened(path, limit_bytes) as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
        file.seek(0)
        if is_zip:
            _check_directory(file, _NAMES | {_name_of(one) for one in plain})
            file.seek(0)
        elif not old_format:
            raise ArchiveError("it is no archive of torch.save")
        body = _load(file, plain)
    _check_tensors(body)
    return body


def opened(path: Path, limit_bytes: int) -> BinaryIO:
    """A regular file of at most so many bytes, open to read. Raises OSError, or ArchiveError for what is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe has nobody wait
    file = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    why = ""
    if not stat.S_ISREG(status.st_mode):
        why = "it is no regular file"
    elif status.st_size > limit_bytes:
        why = f"it has {status.st_size} bytes, wanted at most {limit_bytes}"
    if why:
        file.close()
        raise ArchiveError(why)
    return file


def _check_directory(file: BinaryIO, names: frozenset[str]) -> None:
    """Raises ArchiveError unless the entries of the archive lie in it as they are, each by itself."""
    file_bytes = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise ArchiveError(f"it has {len(entries)} entries, wanted at most {_MAX_ENTRIES}")
            _check_entries(entries, file_bytes)
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    _check_pickle(archive.read(entry), names)
    except ArchiveError:
        raise
    except Exception as error:  # zipfile, struct and pickletools each have errors of their own
        raise ArchiveError(_first_line(error)) from None


def _check_entries(entries: Sequence[zipfile.ZipInfo], file_bytes: int) -> None:
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CarriesCode("a TorchScript archive carries code")
    packed = sum(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or any(entry.compress_size != entry.file_size for entry in entries):
        raise ArchiveError(f"{packed} of its entries are compressed, wanted them as torch.save writes them")
    total_bytes = sum(entry.file_size for entry in entries)
    if total_bytes > file_bytes:
        raise ArchiveError(f"its entries have {total_bytes} bytes in a file of {file_bytes}")
    pickle_bytes = max((entry.file_size for entry in entries if entry.filename.endswith(".pkl")), default=0)
    if pickle_bytes > _MAX_PICKLE_BYTES:
        raise ArchiveError(f"a pickle in it has {pickle_bytes} bytes, wanted at most {_MAX_PICKLE_BYTES}")


def _check_pickle(text: bytes, names: frozenset[str]) -> None:
    """Raises CarriesCode for names that are not plain: torch calls some that take as much memory as is claimed."""
    for operation, argument, _ in pickletools.genops(io.BytesIO(text)):
        if operation.name == "GLOBAL" and not _is_plain(str(argument), names):
            raise CarriesCode(f"it holds more than tensors and plain values ({ascii(argument)[:80]})")


def _is_plain(name: str, names: frozenset[str]) -> bool:
    module, _, attribute = name.partition(" ")
    if module == "torch":
        is_dtype = isinstance(getattr(torch, attribute, None), torch.dtype)
        return is_dtype or name in names or (attribute.endswith("Storage") and attribute.isalnum())
    return name in names


def _name_of(plain: Plain) -> str:
    """As a pickle spells it: the module, and the name in it."""
    path = plain[1] if isinstance(plain, tuple) else f"{plain.__module__}.{plain.__qualname__}"
    return " ".join(path.rpartition(".")[::2])


def _load(file: BinaryIO, plain: Sequence[Plain]) -> object:
    try:
        with torch.serialization.safe_globals(list(plain)):
            body: object = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CarriesCode(f"it holds more than tensors and plain values ({_first_line(error)})") from None
    except Exception as error:  # what its operations raise, in whatever order they come
        raise ArchiveError(_first_line(error)) from None
    return body


def _check_tensors(body: object) -> None:
    """Raises ArchiveError for a tensor that shows more elements than it has bytes for, as one of stride 0 does."""
    seen: set[int] = set()
    left = [body]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.device.type != "cpu":
                raise ArchiveError(f"it has a tensor that is {value.layout} on {value.device.type}, wanted a plain one")
            shown_bytes, held_bytes = value.numel() * value.element_size(), value.untyped_storage().nbytes()
            if shown_bytes > held_bytes:
                raise ArchiveError(f"it has a tensor of {shown_bytes} bytes that are stored as {held_bytes}")
        elif isinstance(value, Mapping):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            left += value


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()[:200] or type(error).__name__
