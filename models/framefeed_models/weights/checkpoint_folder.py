"""A checkpoint of a training run as a folder of safetensors: whether it is whole, and the tensors out of it.

Each process of the run wrote a part: tensors, or pieces of them with where they belong, as torch.distributed.checkpoint
spells it in safetensors, so that its reader puts them together for any number of processes. Nothing in it is executed:
headers are JSON, within limits. It knows no run and no model.
"""

from __future__ import annotations

import json
import math
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor

from framefeed_models.weights.torch_archive import MAX_FILE_BYTES, ArchiveError, opened

FORMAT = 3  # 1 and 2 were single files of torch.save
HEADER_NAME, MODEL_NAME = "checkpoint.json", "config.json"
SHARDING, OFFSETS = "DCP_SHARDING_INFO", "saved_offsets"  # torch.distributed.checkpoint's names
MAX_PARTS = 4095
_NAME = re.compile(r"step_(\d{9,18})")
_MAX_JSON_BYTES = 1 << 26
_READ_BYTES = 1 << 22
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}


class CheckpointError(ValueError):
    """A folder that is no whole checkpoint; one line that says why, without the folder's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process says of its part: its file's size and CRC-32, and the state of its data."""

    file_bytes: int
    crc32: int
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a checkpoint says of itself: steps done, processes that wrote it, and the rest of checkpoint.json."""

    step: int
    world: int
    said: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Shape and dtype of a tensor that lies there, put together."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def folder_name(step: int) -> str:
    """Of the checkpoint after so many steps."""
    return f"step_{step:09d}"


def part_names(rank: int) -> tuple[str, str]:
    """Of a process's tensors, and of what it says of them."""
    return f"part_{rank:05d}.safetensors", f"part_{rank:05d}.json"


def numbered(run: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a run's folder by their steps, damaged ones too. Raises OSError if it cannot be listed."""
    found = ((_NAME.fullmatch(path.name), path) for path in run.iterdir()) if run.is_dir() else ()
    return sorted((int(match[1]), path) for match, path in found if match and not path.is_file())


def checkpoint_in(folder: Path) -> Path | None:
    """A checkpoint that a folder is, or the one with the most steps in a run's folder, damaged or not; None if there is
    none. Raises OSError if the folder cannot be listed.
    """
    if folder.is_dir() and (folder / HEADER_NAME).exists():
        return folder
    found = numbered(folder)
    return found[-1][1] if found else None


def read_header(folder: Path) -> Header:
    """What checkpoint.json says. Raises CheckpointError."""
    said = _json(folder / HEADER_NAME)
    version = said.get("framefeed_checkpoint")
    if version != FORMAT:
        raise CheckpointError(f"it has version {_shown(version)}, wanted {FORMAT}")
    return Header(
        step=_whole(said, "step", most=10**18 - 1), world=_whole(said, "world", least=1, most=MAX_PARTS), said=said
    )


def read_part(folder: Path, rank: int) -> Part:
    """What a process has said of its part. Raises CheckpointError."""
    said = _json(folder / part_names(rank)[1])
    data = said.get("data")
    if not isinstance(data, dict) or not all(isinstance(value, int | str | None) for value in data.values()):
        raise CheckpointError(f"{part_names(rank)[1]} has no data state of integers and texts")
    return Part(
        file_bytes=_whole(said, "file_bytes", most=MAX_FILE_BYTES),
        crc32=_whole(said, "crc32", most=(1 << 32) - 1),
        data=data,
    )


def check_parts(folder: Path, *, ranks: Iterable[int]) -> None:
    """Read the parts of these processes to the end. Raises CheckpointError if one is not what was written."""
    for rank in ranks:
        name, part = part_names(rank)[0], read_part(folder, rank)
        seen_bytes, crc32 = 0, 0
        try:
            with opened(folder / name, MAX_FILE_BYTES) as file:
                while block := file.read(_READ_BYTES):
                    seen_bytes, crc32 = seen_bytes + len(block), zlib.crc32(block, crc32)
        except (OSError, ArchiveError) as error:
            raise CheckpointError(f"{name} cannot be read: {_reason(error)}") from None
        if (seen_bytes, crc32) != (part.file_bytes, part.crc32):
            seen, wanted = f"{seen_bytes} bytes of CRC-32 {crc32:08x}", f"{part.file_bytes} of {part.crc32:08x}"
            raise CheckpointError(f"{name} has {seen}, wanted {wanted}")


def layout(folder: Path, *, world: int) -> dict[str, Layout]:
    """The tensors there, by name. Raises CheckpointError unless their pieces are each tensor once, without a hole."""
    wanted = {part_names(rank)[0] for rank in range(world)}
    try:
        seen = {path.name for path in folder.iterdir() if path.name.endswith(".safetensors")}
    except OSError as error:
        raise CheckpointError(f"it cannot be listed: {_reason(error)}") from None
    if seen != wanted:
        raise CheckpointError(f"it has {', '.join(map(_shown, sorted(seen ^ wanted)[:3]))} too many or too few")
    pieces: dict[str, list[tuple[tuple[int, ...], tuple[int, ...], str]]] = {}
    for name in sorted(wanted):
        for tensor, piece in _pieces(folder / name).items():
            pieces.setdefault(tensor, []).append(piece)
    return {tensor: _put_together(tensor, found) for tensor, found in pieces.items()}


def fill(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read into tensors in place, each by its name, of those divided among processes this one's part. Check `layout`
    first: names, shapes and dtypes are those there. Blocks for the files' time. Raises CheckpointError."""
    into = dict(tensors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no other process is asked is meant so
            load(into, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except Exception as error:  # the library's own are of many kinds
        raise CheckpointError(f"its tensors cannot be read: {_reason(error)}") from None


def read_whole(folder: Path, *, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, put together on the CPU, without the prefix. Raises CheckpointError."""
    header = read_header(folder)
    check_parts(folder, ranks=range(header.world))
    found = {name: part for name, part in layout(folder, world=header.world).items() if name.startswith(prefix)}
    tensors = {name: torch.empty(part.shape, dtype=part.dtype) for name, part in found.items()}
    fill(folder, tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def differing_tensors(found: Mapping[str, Layout], wanted: Mapping[str, Tensor]) -> str:
    """What tensors there are not those that are wanted, as the beginning of a line; empty if all are."""
    wrong = sorted(found.keys() ^ wanted.keys())
    if wrong:
        return f"it has {'no' if wrong[0] in wanted else 'a'} {_shown(wrong[0])}"
    for name, tensor in wanted.items():
        seen = found[name]
        if (seen.shape, seen.dtype) != (tuple(tensor.shape), tensor.dtype):
            return f"{name} is {seen.dtype} {seen.shape}, wanted {tensor.dtype} {tuple(tensor.shape)}"
    return ""


def piece_of(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """What this process holds of a tensor, and where in the whole that begins."""
    if not isinstance(tensor, DTensor):
        return tensor, (0,) * tensor.ndim
    (chunk,) = tensor.__create_chunk_list__()  # type: ignore[no-untyped-call]
    return tensor.to_local(), tuple(chunk.offsets)


def _pieces(path: Path) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], str]]:
    """Each tensor's offsets, sizes and dtype in one file; the library has checked that the file holds so much."""
    try:
        with opened(path, MAX_FILE_BYTES):
            pass
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
            told = json.loads((file.metadata() or {}).get(SHARDING, ""))
        return {name: (_offsets(told, name, shape), shape, dtype) for name, (shape, dtype) in shapes.items()}
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {_reason(error)}") from None


def _offsets(told: object, name: str, shape: Sequence[int]) -> tuple[int, ...]:
    entry = told.get(name) if isinstance(told, dict) else None
    offsets = entry.get(OFFSETS) if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != len(shape):
        raise CheckpointError(f"{_shown(name)} does not say where its piece of shape {shape} belongs")
    if not all(type(offset) is int and 0 <= offset < 1 << 48 for offset in offsets):
        raise CheckpointError(f"{_shown(name)} begins at {_shown(offsets)}, wanted numbers from 0")
    return tuple(offsets)


def _put_together(name: str, pieces: Sequence[tuple[tuple[int, ...], tuple[int, ...], str]]) -> Layout:
    dtypes, ranks = {dtype for _, _, dtype in pieces}, {len(sizes) for _, sizes, _ in pieces}
    if len(dtypes) > 1 or len(ranks) > 1 or not dtypes <= DTYPES.keys():
        raise CheckpointError(
            f"the pieces of {_shown(name)} are of {', '.join(sorted(dtypes))}, wanted one of {', '.join(DTYPES)}"
        )
    shape = tuple(max(offsets[axis] + sizes[axis] for offsets, sizes, _ in pieces) for axis in range(ranks.pop()))
    held = [(offsets, sizes) for offsets, sizes, _ in pieces if math.prod(sizes)] or [(pieces[0][0], pieces[0][1])]
    for number, one in enumerate(held):
        if any(_overlap(one, other) for other in held[:number]):
            raise CheckpointError(f"two pieces of {_shown(name)} lie over each other")
    if sum(math.prod(sizes) for _, sizes in held) != math.prod(shape):
        raise CheckpointError(f"the pieces of {_shown(name)} leave a hole in its shape {shape}")
    return Layout(shape=shape, dtype=DTYPES[dtypes.pop()])


def _overlap(one: tuple[Sequence[int], Sequence[int]], other: tuple[Sequence[int], Sequence[int]]) -> bool:
    return all(a < b + b_size and b < a + a_size for a, a_size, b, b_size in zip(*one, *other, strict=True))


def _whole(said: Mapping[str, object], name: str, *, least: int = 0, most: int) -> int:
    value = said.get(name)
    if type(value) is not int or not least <= value <= most:
        raise CheckpointError(f"{name} is {_shown(value)}, wanted {least} to {most}")
    return value


def _json(path: Path) -> dict[str, object]:
    try:
        with opened(path, _MAX_JSON_BYTES) as file:
            said = json.loads(file.read(_MAX_JSON_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"it has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {_reason(error)}") from None
    if not isinstance(said, dict):
        raise CheckpointError(f"{path.name} is no JSON object")
    return said


def _shown(value: object) -> str:
    """A value that anybody may have written, on one line."""
    return (value if isinstance(value, str) and value.isprintable() else ascii(value))[:120]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _shown(str(error).partition("\n")[0].strip() or type(error).__name__)
