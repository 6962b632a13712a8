"""Packet indices that anybody may have written: read as they should be, or CorruptMedia, at no cost in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_server.clips.read_watch import ReadWatch
from decode_server.clips.storage import Storage
from decode_server.media.packet_index import DISPOSABLE, KEY, PacketIndex, unpack_index
from framefeed.errors import CorruptMedia
from tests.mutations import STRANGE, mangled
from tests.unit.decode.indices import make_index

INDEX = make_index([0, 3, 1, 2], [KEY, 0, DISPOSABLE, DISPOSABLE], [100, 50, 20, 20], [48, 0, 0, 0])
BODY: dict[str, Any] = msgspec.msgpack.decode(INDEX.pack())


def is_usable_or_corrupt(record: bytes) -> None:
    """What is read can be used by all that use an index."""
    try:
        index = unpack_index(record, where="here:7")
    except CorruptMedia as error:
        said = str(error)
    else:
        _use(index)
        return
    assert said.startswith("packet index at here:7 is damaged (")
    assert "\n" not in said


def _use(index: PacketIndex) -> None:
    assert np.isfinite(index.times_s).all()
    assert min(index.display_px) > 0
    assert len(index.keys)
    assert index.where(0)
    assert len(index.digest) == 16


@given(mangled(INDEX.pack()))
def test_any_bytes(record: bytes) -> None:
    is_usable_or_corrupt(record)


@given(st.sampled_from(sorted(BODY)), STRANGE)
def test_any_value(name: str, value: Any) -> None:
    try:
        record = msgspec.msgpack.encode({**BODY, name: value})
    except (OverflowError, RecursionError):  # msgpack has no such value
        return
    is_usable_or_corrupt(record)


@given(st.sampled_from(("offset", "size", "pts", "flags", "crc32")), st.data())
def test_any_column(name: str, data: st.DataObject) -> None:
    column = data.draw(st.binary(min_size=len(BODY[name]), max_size=len(BODY[name])))
    is_usable_or_corrupt(msgspec.msgpack.encode({**BODY, name: column}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"size": np.full(4, 0xFFFFFFFF, "<u4").tobytes()},
            "the greatest of size is 4294967295, wanted 0 to 268435456",
        ),
        ({"offset": np.full(4, -1, "<i8").tobytes()}, "the least of offset is -1"),
        ({"sar": (0, 1)}, "sar is 0, wanted 1"),
        ({"sar": (1, 0)}, "sar is 0, wanted 1"),
        ({"sar": (1, 1 << 30)}, "sar is 1073741824.0, wanted 1 to 256"),
        ({"time_base_s": (1, 0)}, "time_base_s is 0, wanted 1"),
        ({"width_px": 0}, "width_px is 0, wanted 1"),
        ({"height_px": 1 << 20}, "height_px is 1048576, wanted 1 to 65536"),
        ({"rotation_deg": 45}, "rotation_deg is 45, wanted 0, 90, 180 or 270"),
        ({"duration_s": float("inf")}, "duration_s is inf"),
        ({"duration_s": float("nan")}, "duration_s is nan"),
        ({"origin_pts": -(1 << 63)}, "origin_pts is -9223372036854775808"),
        ({"pts": np.full(4, 1 << 61, "<i8").tobytes()}, "a time is "),
        ({"flags": bytes([255, 0, 0, 0])}, "the greatest of flags is 255, wanted 0 to 15"),
        ({"colour": ("bt999", False)}, "matrix is 'bt999'"),
        ({"more": 1}, "unknown field `more`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_file_can_be_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CorruptMedia, match="index the root again") as caught:
        unpack_index(msgspec.msgpack.encode({**BODY, **change}), where="x")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "head", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 50_000]
)
def test_lengths_that_are_only_claimed_take_no_memory(head: bytes) -> None:
    field = msgspec.msgpack.encode("extradata")
    tracemalloc.start()
    try:
        for record in (head, b"\x81" + field + head, b"\x81" + msgspec.msgpack.encode("more") + head):
            with pytest.raises(CorruptMedia, match="is damaged"):
                unpack_index(record, where="x")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_bytes_that_a_file_does_not_have_take_no_memory(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"x" * 1000)
    storage = Storage(tmp_path, watch=ReadWatch())
    tracemalloc.start()
    try:
        with pytest.raises(CorruptMedia, match=r"v\.mp4 ends at byte 1000, the index needs 4294967295"):
            storage.read("v.mp4", 0, 0xFFFFFFFF)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
        storage.close()
