"""Reads pickles of plain containers and NumPy values, and nothing that could run code; it knows no annotations.

A pickle is a program that may call anything it can name. Here it can name what NumPy's arrays and scalars are pickled
by, and gets functions of this file instead: NumPy's own believe what they are told of memory.
"""

from __future__ import annotations

import gc
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from framefeed.errors import BadInput
from framefeed.regular_file import opened_regular
from framefeed.show_value import one_line

_PICKLE_BYTES = 1 << 36


class _Refused(Exception):
    """The pickle wants something that plain data has no need of."""


class _Kind:
    """numpy.dtype of numbers or texts: its letters and size, then, as its state, the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: object, *_flags: object) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise _Refused("an array of something else than numbers or texts")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise _Refused("a dtype that is none of numbers or texts")
        self.dtype = self.dtype.newbyteorder(state[1])


class PlainArray:
    """An array within the data: `value` is it, or a list where it was of objects."""

    __slots__ = ("value",)

    def __init__(self, kind: object, shape: object, code: object) -> None:
        """numpy.core.multiarray._reconstruct as arrays are pickled: an empty one, whose state follows."""
        if kind is not _NDARRAY or shape != (0,) or code not in (b"b", "b"):
            raise _Refused("an array of another kind")
        self.value: np.ndarray[Any, Any] | list[object] = np.empty(0)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("an array without a state")
        _, shape, kind, is_fortran, data = state
        if isinstance(kind, _Objects) and isinstance(data, list) and shape == (len(data),):
            self.value = data
        else:
            self.value = _array(data, kind, shape, "F" if is_fortran else "C")


class _Objects:
    """numpy.dtype of Python's objects, which stand in a list."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        del state


class _Named:
    """A function that a pickle may call."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *args: object) -> object:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        """It is one for all files: what a pickle says of it would be so for those that are read after it."""
        del state
        raise _Refused("to change what it is read by")


def _dtype(code: object, *flags: object) -> _Kind | _Objects:
    return _Objects() if code in ("O", "O8") else _Kind(code, *flags)


def _scalar(kind: object, data: object = b"") -> object:
    """numpy.core.multiarray.scalar: a number of a dtype by its bytes, as Python's."""
    return _array(data, kind, (1,), "C")[0].item()


def _array(data: object, kind: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    if isinstance(data, str):  # bytes of a pickle of Python 2
        data = data.encode("latin1")
    is_shape = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
    if not (isinstance(kind, _Kind) and isinstance(data, bytes | bytearray) and is_shape and order in ("C", "F")):
        raise _Refused("an array of something else than numbers or texts")
    assert isinstance(shape, tuple)
    if len(data) != kind.dtype.itemsize * math.prod(shape):
        raise _Refused(f"an array of {len(data)} bytes as {kind.dtype} {shape}")
    found: np.ndarray[Any, Any] = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if order == "F" else "C")
    return found


def _encode(text: object, codec: object = "latin1") -> bytes:
    """_codecs.encode as protocol 2 spells bytes."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise _Refused("an encoding")
    return text.encode("latin1")


_CODE = re.compile(r"[biuf][1248]|[SU]\d{1,6}|[?]")
_NDARRAY = object()
_CORES = ("numpy.core", "numpy._core")
_BUILTINS = ("builtins", "__builtin__")
_KNOWN: dict[tuple[str, str], object] = {
    **{(module, "set"): _Named(set) for module in _BUILTINS},
    **{(module, "frozenset"): _Named(frozenset) for module in _BUILTINS},
    ("collections", "OrderedDict"): _Named(dict),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Named(_dtype),
    ("_codecs", "encode"): _Named(_encode),
    **{(f"{core}.multiarray", "_reconstruct"): _Named(PlainArray) for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _Named(_scalar) for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _Named(_array) for core in _CORES},
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            raise _Refused(f"{module}.{name}")
        return known

    def persistent_load(self, pid: object, /) -> Any:
        del pid
        raise _Refused("something that is not in it")


def load_plain(path: Path) -> object:
    """What is in a pickle file. Takes as much memory as its objects do, a tuple of a text some 300 bytes.

    Raises BadInput, with nothing run, for one that names anything but NumPy's arrays and numbers, or is damaged.
    """
    try:
        with opened_regular(path, limit_bytes=_PICKLE_BYTES) as file:
            found = _load(file)
            return found.value if isinstance(found, PlainArray) else found
    except OSError as error:
        raise BadInput(f"pickle {path} cannot be read: {error.strerror}") from None
    except _Refused as refused:
        raise BadInput(
            f"pickle {path} wants {one_line(str(refused))}, and only lists, tuples, dicts, texts, numbers and NumPy "
            "arrays are read: a pickle may run any code"
        ) from None
    except MemoryError:
        raise BadInput(f"pickle {path} needs more memory than there is") from None
    except Exception as error:
        raise BadInput(f"pickle {path} is damaged ({type(error).__name__}: {one_line(str(error))})") from None


def _load(file: BinaryIO) -> object:
    was_on = gc.isenabled()
    gc.disable()  # millions of tuples are made, none of which is garbage: three times as fast
    try:
        return _Plain(file, encoding="latin1").load()
    finally:
        if was_on:
            gc.enable()
