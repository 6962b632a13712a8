"""Manifest, quarantine and entries that anybody may have written: read as they should be, or one line that says no."""

from __future__ import annotations

import json
import os
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from framefeed.key_files import read_public
from framefeed.manifest import MANIFEST_NAME, read_identity, read_manifest
from framefeed.quarantine import QUARANTINE_NAME, Quarantine, read_quarantine
from framefeed.server_entry import SUFFIX, read_entry, unpack_entry
from tests.entries import entry
from tests.mutations import mangled, restructured
from tests.unit.contract.test_manifest import MANIFEST
from tests.unit.contract.test_quarantine import span

Read = Callable[[Path], object]

with tempfile.TemporaryDirectory() as _folder:
    MANIFEST.write(Path(_folder))
    Quarantine([span("a", 1, 2), span("b", 3, 4, "chunk")]).write(Path(_folder))
    _MANIFEST = (Path(_folder) / MANIFEST_NAME).read_bytes()
    _QUARANTINE = (Path(_folder) / QUARANTINE_NAME).read_bytes()

FILES: dict[str, tuple[bytes, Read]] = {
    MANIFEST_NAME: (_MANIFEST, read_manifest),
    QUARANTINE_NAME: (_QUARANTINE, read_quarantine),
}


def is_read_or_one_line(folder: Path, read: Read) -> None:
    said = ""
    try:
        read(folder)
    except BadInput as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 700


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_any_bytes_are_read_or_one_line(name: str, data: st.DataObject) -> None:
    whole, read = FILES[name]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(data.draw(mangled(whole)))
        is_read_or_one_line(Path(folder), read)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_any_values_are_read_or_one_line(name: str, data: st.DataObject) -> None:
    whole, read = FILES[name]
    lines = [json.loads(line) for line in whole.splitlines()]
    strange = data.draw(restructured(lines))
    text = "\n".join(map(json.dumps, strange if isinstance(strange, list) else [strange]))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text)
        is_read_or_one_line(Path(folder), read)


@given(st.one_of(mangled(entry().pack().encode()), restructured(json.loads(entry().pack()))))
def test_any_entry_is_one_or_a_value_error(strange: Any) -> None:
    text = strange if isinstance(strange, bytes) else json.dumps(strange).encode()
    try:
        found = unpack_entry(text.decode())
    except ValueError:
        return
    assert found == unpack_entry(found.pack())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"duration_s": -1.0}, "duration_s is -1.0, wanted 0 to"),
        ({"width_px": 0}, "width_px is 0, wanted 1 to"),
        ({"height_px": 1 << 40}, "height_px is 1099511627776, wanted 1 to"),
        ({"media_bytes": -5}, "media_bytes is -5"),
        ({"chunk_start_s": [0.0, 30.0, 15.0]}, "not in time order"),
        ({"record_bytes": [100, 100, 0xFFFFFFFF]}, "the greatest of record_bytes is 4294967295"),
        ({"record_offset": [-1, 0, 0]}, "the least of record_offset is -1"),
        ({"video": ""}, "its name has 0 characters"),
        ({"codec": "h" * 65}, "codec has 65 characters"),
        ({"more": 1}, "line 2: .*unknown field `more`"),
        ({"fps": "25"}, "line 2: Expected `float`"),
        ({"kind": "other"}, "line 2: Invalid value 'other'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_video_can_be_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    head, video, *rest = [json.loads(line) for line in _MANIFEST.splitlines()]
    lines = [head, {**video, **change}, *rest]
    (tmp_path / MANIFEST_NAME).write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(BadInput, match=says) as caught:
        read_manifest(tmp_path)
    assert MANIFEST_NAME in str(caught.value)


@pytest.mark.parametrize("name", [MANIFEST_NAME, QUARANTINE_NAME])
@pytest.mark.parametrize("what", ["pipe", "folder", "device", "loop"])
def test_no_other_file_holds_a_reader_up(tmp_path: Path, name: str, what: str) -> None:
    planted(tmp_path / name, what)
    with pytest.raises(BadInput, match="cannot be read"):
        FILES[name][1](tmp_path)
    if name == MANIFEST_NAME:
        with pytest.raises(OSError, match=r"wanted a regular file|symbolic links"):
            read_identity(tmp_path)


@pytest.mark.parametrize("what", ["pipe", "folder", "device", "loop", "link"])
def test_no_other_file_is_an_entry_or_a_key(tmp_path: Path, what: str) -> None:
    planted(path := tmp_path / f"a{SUFFIX}", what)
    with pytest.raises(ValueError, match=r"wanted a regular file|symbolic links"):
        read_entry(path)
    if what != "link":
        with pytest.raises(BadInput, match=r"--tls-ca: .* cannot be read"):
            read_public(path, option="--tls-ca")


def planted(path: Path, what: str) -> None:
    match what:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "link":
            other = path.with_name("other")
            other.write_text(entry().pack())
            path.symlink_to(other)


@pytest.mark.parametrize("name", [MANIFEST_NAME, QUARANTINE_NAME])
def test_files_without_end_are_refused_by_their_size_or_their_lines(tmp_path: Path, name: str) -> None:
    whole, read = FILES[name]
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no room
    with pytest.raises(BadInput, match=r"it has 1099511627776 bytes, wanted at most \d+"):
        read(tmp_path)
    path.write_bytes(whole.splitlines()[0] + b"\n" + b"[" * 1_000_000)
    with pytest.raises(BadInput, match="is damaged"):
        read(tmp_path)
    path.write_bytes(whole.splitlines()[0] + b"\n")
    with path.open("r+b") as file:
        file.truncate(1 << 27)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="is damaged"):
            read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 160 << 20
    finally:
        tracemalloc.stop()


def test_a_large_entry_is_none(tmp_path: Path) -> None:
    (tmp_path / f"big{SUFFIX}").write_bytes(b" " * 70_000)
    with pytest.raises(ValueError, match="wanted at most 65536"):
        read_entry(tmp_path / f"big{SUFFIX}")
