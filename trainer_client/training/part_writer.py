"""One process's part of a checkpoint: copied between two steps, and written by a thread while training goes on.

It knows tensors and one folder, neither runs nor which checkpoints there are. A tensor that every rank has whole is
written by one of them, so that each has about as much to write.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from framefeed.errors import StorageFault
from framefeed_models.weights.checkpoint_folder import DTYPES, OFFSETS, SHARDING, part_names, piece_of
from trainer_client.training.ranks import Ranks

_WRITE_BYTES = 1 << 22
_SPELLED = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A tensor of this process alone, and where it begins in the whole."""

    tensor: Tensor
    offsets: tuple[int, ...]


class Staging:
    """Copies what one rank has to write, so that the next step may change the live tensors.

    On the CPU into the same memory at each save: fresh memory would cost more than the copy. On a GPU the copy is the
    device's, and what waits for it is the writer's thread.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Piece]:
        """This rank's share of tensors that all ranks name alike. Overwrites the copy before; waits for no device."""
        pieces = _share(tensors, self._ranks)
        staged = {name: self._buffer(name, piece.tensor) for name, piece in pieces.items()}
        if pieces:
            torch._foreach_copy_(list(staged.values()), [piece.tensor for piece in pieces.values()])
        self._buffers = {name: tensor for name, tensor in staged.items() if tensor.device.type == "cpu"}
        return {name: Piece(tensor=staged[name], offsets=piece.offsets) for name, piece in pieces.items()}

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        known = self._buffers.get(name)
        if known is not None and (known.shape, known.dtype) == (like.shape, like.dtype):
            return known
        return torch.empty_like(like, memory_format=torch.contiguous_format)


class Background:
    """Work for storage in a thread of its own, that fails where somebody asks for it."""

    def __init__(self, work: Callable[[], None], *, what: str) -> None:
        self._work, self._what = work, what
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="framefeed-checkpoint", daemon=True)
        self._thread.start()

    def done(self, *, wait_s: float = 0.0) -> bool:
        """Whether it is done; waits for at most so long. Raises StorageFault if it has failed."""
        self._thread.join(wait_s)
        if self._thread.is_alive():
            return False
        if isinstance(self._error, StorageFault):
            raise self._error
        if self._error is not None:
            raise StorageFault(f"{self._what} cannot be written: {why_not(self._error)}")
        return True

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # told to whoever asks
            self._error = error


def part_writing(
    folder: int, pieces: Mapping[str, Piece], *, rank: int, data: Mapping[str, object], what: str
) -> Background:
    """Begin to write a rank's part into a folder, to storage. `folder` is a descriptor, closed in the end.

    What fails leaves no file: on a full disc the rest of the run may have to write there.
    """
    copied = [_mark(device) for device in {p.tensor.device for p in pieces.values()} if device.type == "cuda"]

    def write() -> None:
        tensors, told = part_names(rank)
        try:
            for event in copied:
                event.synchronize()
            size_bytes, crc32 = write_new(folder, tensors, _blocks(pieces))
            said = {"file_bytes": size_bytes, "crc32": crc32, "data": dict(data)}
            write_new(folder, told, iter([memoryview(json.dumps(said).encode())]))
            os.fsync(folder)
        except BaseException:
            for name in (tensors, told):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(folder)

    return Background(write, what=what)


def write_new(folder: int, name: str, blocks: Iterator[memoryview]) -> tuple[int, int]:
    """Write a file that was not there, to storage; its size and CRC-32. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o666, dir_fd=folder), "wb", buffering=0) as file:
        size_bytes, crc32 = 0, 0
        for block in blocks:
            left = block
            while left:
                left = left[file.write(left) :]
            size_bytes, crc32 = size_bytes + len(block), zlib.crc32(block, crc32)
        os.fsync(file.fileno())
    return size_bytes, crc32


def why_not(error: Exception) -> str:
    """The reason in an error of writing, as one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _share(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Piece]:
    """Of divided tensors this rank's part, of whole ones those that fall to it: each to whoever has least so far."""
    pieces: dict[str, Piece] = {}
    loads_bytes = [0] * ranks.world
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            writer = loads_bytes.index(min(loads_bytes))
            loads_bytes[writer] += tensor.nbytes
            if writer != ranks.rank:
                continue
        held, offsets = piece_of(tensor.detach())
        pieces[name] = Piece(tensor=held, offsets=offsets)
    return pieces


def _blocks(pieces: Mapping[str, Piece]) -> Iterator[memoryview]:
    """A file of safetensors, piece by piece, without a copy of what is on the CPU already."""
    entries: dict[str, object] = {}
    at = 0
    for name, piece in pieces.items():
        if piece.tensor.dtype not in _SPELLED:
            raise ValueError(f"{name} is {piece.tensor.dtype}, wanted one of {', '.join(DTYPES)}")
        span = [at, at := at + piece.tensor.nbytes]
        entries[name] = {"dtype": _SPELLED[piece.tensor.dtype], "shape": list(piece.tensor.shape), "data_offsets": span}
    places = {name: {OFFSETS: list(piece.offsets)} for name, piece in pieces.items()}
    entries["__metadata__"] = {"format": "pt", "DCP_VERSION": "1.0", SHARDING: json.dumps(places)}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    yield memoryview(len(header).to_bytes(8, "little") + header)
    for piece in pieces.values():
        if piece.tensor.numel():
            raw = piece.tensor.to("cpu").reshape(-1).view(torch.uint8).numpy().data
            yield from (raw[start : start + _WRITE_BYTES] for start in range(0, len(raw), _WRITE_BYTES))


def _mark(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
