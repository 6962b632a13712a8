"""The restricted unpickler: every plain value comes back, in every protocol, and nothing that NumPy would trust."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefeed.errors import BadInput
from trainer_client.datasets.plain_pickle import PlainArray, load_plain


def loaded(tmp_path: Path, data: bytes) -> object:
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    return load_plain(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F", ">"])
def test_arrays_of_every_protocol_and_order(tmp_path: Path, protocol: int, order: str) -> None:
    array = np.arange(12.0).reshape(3, 4)
    array = array.astype(">f8") if order == ">" else np.array(array, order=order)  # type: ignore[call-overload]
    found = loaded(tmp_path, pickle.dumps(array, protocol=protocol))
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_scalars(tmp_path: Path, protocol: int) -> None:
    value: list[Any] = [("a", 1, 2.5, None, True, b"x", {"k": {1, 2}}), np.float32(0.5), np.int64(7), np.str_("t")]
    found = loaded(tmp_path, pickle.dumps(value, protocol=protocol))
    assert found == [("a", 1, 2.5, None, True, b"x", {"k": {1, 2}}), 0.5, 7, "t"]


def test_arrays_within_are_named_so(tmp_path: Path) -> None:
    found = loaded(tmp_path, pickle.dumps([np.array(["a", "b"]), np.array(["c", None], object)]))
    assert isinstance(found, list)
    assert [list(one.value) for one in found if isinstance(one, PlainArray)] == [["a", "b"], ["c", None]]


def _with(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(len),
        pickle.dumps(np.dtype([("a", "f8")])),
        pickle.dumps(np.zeros(2, "datetime64[s]")),
        _with(pickle.dumps(np.zeros(4, np.float64), protocol=2), b"K\x04\x85", b"K\x05\x85"),
        b"cnumpy\nndarray\n(I1000000000\ntR.",
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(VO8\ntRVx\ntR.",
        b"\x80\x04\x95",
        b"",
        b"Pid\n.",
    ],
    ids=lambda data: f"{len(data)} bytes",
)
def test_what_is_not_plain_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadInput, match=r"^pickle .*x\.pkl (wants|is damaged)"):
        loaded(tmp_path, data)


def test_a_pickle_changes_nothing_for_those_that_are_read_after_it(tmp_path: Path) -> None:
    state = b"N}(V_call\ncbuiltins\nfrozenset\nu\x86"  # (None, {"_call": …}): a value for each slot
    with pytest.raises(BadInput, match="wants to change what it is read by"):
        loaded(tmp_path, b"\x80\x02cbuiltins\nset\n" + state + b"b.")
    found = loaded(tmp_path, pickle.dumps({1, 2}, protocol=2))
    assert type(found) is set


def test_every_cut_of_a_pickle_ends_in_one_line(tmp_path: Path) -> None:
    data = pickle.dumps([("uid", 1.0, np.float64(2.0), np.array([1, 2]))])
    for length in range(len(data)):
        with pytest.raises(BadInput):
            loaded(tmp_path, data[:length])


def test_a_flipped_bit_never_raises_anything_else(tmp_path: Path) -> None:
    data = bytearray(pickle.dumps([("uid", 1.0, np.float64(2.0), np.array([1.0, 2.0]), ["a"])]))
    for at in range(len(data)):
        for bit in (0, 3, 7):
            data[at] ^= 1 << bit
            with contextlib.suppress(BadInput):
                loaded(tmp_path, bytes(data))
            data[at] ^= 1 << bit
