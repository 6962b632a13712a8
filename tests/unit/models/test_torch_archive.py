"""Files of torch.save that anybody may have made: tensors and plain values or one line, no more than they are."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framefeed_models.weights.files import WeightsFileError, read_weights
from framefeed_models.weights.torch_archive import ArchiveError, load_archive

BODY = {"model": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}, "step": 3, "config": "{}"}


def saved(body: object = BODY) -> bytes:
    file = io.BytesIO()
    torch.save(body, file)
    return file.getvalue()


def written(path: Path, entries: dict[str, bytes], *, packed: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def entries_of(whole: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


WHOLE = saved()


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(WHOLE)
    loaded = load_archive(tmp_path / "a.pt")
    assert isinstance(loaded, dict)
    assert torch.equal(loaded["model"]["a"], BODY["model"]["a"])  # type: ignore[index]


@settings(max_examples=60)
@given(st.data())
def test_any_bytes_are_loaded_or_one_line(data: st.DataObject) -> None:
    """Also where the pickle itself is changed, and the archive around it whole."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        if data.draw(st.booleans()):
            path.write_bytes(data.draw(changed(WHOLE)))
        else:
            entries = entries_of(WHOLE)
            name = data.draw(st.sampled_from(sorted(entries)))
            written(path, {**entries, name: data.draw(changed(entries[name]))})
        for read in (load_archive, read_weights):
            said = refusal(read, path)
            assert "\n" not in said


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)


def refusal(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except (ArchiveError, WeightsFileError) as error:
        return str(error)
    return ""


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pt", {**entries_of(WHOLE), "archive/data/7": bytes(1 << 26)}, packed=True)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ArchiveError, match=r"\d of its entries are compressed"):
        load_archive(path)
    with pytest.raises(WeightsFileError, match=r"a\.pt cannot be read: \d of its entries are compressed"):
        read_weights(path)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", entries_of(WHOLE)["archive/data.pkl"])
        archive.writestr("archive/data/0", bytes(100_000))
        (first,) = [entry for entry in archive.infolist() if entry.filename == "archive/data/0"]
        for number in range(1, 50):
            again = zipfile.ZipInfo(f"archive/data/{number}")
            again.file_size = again.compress_size = first.file_size
            again.CRC, again.header_offset = first.CRC, first.header_offset
            archive.filelist.append(again)
    with pytest.raises(ArchiveError, match=r"its entries have \d+ bytes in a file of \d+"):
        load_archive(path)


def test_a_tensor_that_shows_more_than_it_stores_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(saved({"a": torch.zeros(1).expand(1 << 40)}))
    with pytest.raises(ArchiveError, match="a tensor of 4398046511104 bytes that are stored as 4"):
        load_archive(tmp_path / "a.pt")


class _Long:
    def __reduce__(self) -> tuple[type[bytearray], tuple[int]]:
        return bytearray, (1 << 40,)


def test_what_would_be_made_as_long_as_it_claims_is_refused(tmp_path: Path) -> None:
    """torch's own restricted unpickler makes bytearrays of any length."""
    (tmp_path / "a.pt").write_bytes(saved({"a": _Long()}))
    with pytest.raises(ArchiveError, match=r"holds more than tensors and plain values .*bytearray"):
        load_archive(tmp_path / "a.pt")


def test_storages_that_claim_more_than_is_there_are_refused(tmp_path: Path) -> None:
    entries = entries_of(saved({"a": torch.zeros(4)}))
    claims = entries["archive/data.pkl"].replace(b"K\x04tq\x07Q", b"J\x00\x00\x10\x00tq\x07Q")
    assert claims != entries["archive/data.pkl"]
    with pytest.raises(ArchiveError, match="size"):
        load_archive(written(tmp_path / "a.pt", {**entries, "archive/data.pkl": claims}))


def test_a_pickle_without_end_is_refused(tmp_path: Path) -> None:
    whole = entries_of(WHOLE)
    with pytest.raises(ArchiveError, match="a pickle in it has"):
        load_archive(written(tmp_path / "a.pt", {**whole, "archive/data.pkl": bytes((1 << 26) + 1)}))
    with pytest.raises(ArchiveError, match=r"\w"):
        load_archive(written(tmp_path / "b.pt", {**whole, "archive/data.pkl": b"(" * 100_000}))


def test_what_is_no_file_of_torch_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"a": 1}))
    for name in ("pipe.pt", "zero.pt"):
        with pytest.raises(ArchiveError, match="no regular file"):
            load_archive(tmp_path / name)
    for name in ("pipe.pt", "zero.pt", "pipe.safetensors"):
        with pytest.raises(WeightsFileError, match=f"{name} cannot be read: it is no regular file"):
            read_weights(tmp_path / name)
    with pytest.raises(ArchiveError, match=r"no archive of torch\.save"):
        load_archive(tmp_path / "old.pt")
    (tmp_path / "a.pt").write_bytes(WHOLE)
    with pytest.raises(ArchiveError, match=r"it has \d+ bytes, wanted at most 100"):
        load_archive(tmp_path / "a.pt", limit_bytes=100)
