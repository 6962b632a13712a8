"""Reads: exact bytes with padding, confined to the root, failing storage told apart from missing media."""

import errno
import os
import threading
from pathlib import Path

import pytest

from decode_server.storage import PADDING_BYTES, Storage
from framefeed.errors import CorruptMedia, StorageFault


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.bin").write_bytes(bytes(range(200)))
    (tmp_path / "secret.bin").write_bytes(b"secret")
    return tmp_path / "root"


def test_reads_the_range_and_pads_it_with_zeros(root: Path) -> None:
    storage = Storage(root)
    assert storage.read("a.bin", 10, 20) == bytes(range(10, 20)) + bytes(PADDING_BYTES)
    storage.close()
    storage.close()


def test_a_file_that_ends_early_says_where(root: Path) -> None:
    with pytest.raises(CorruptMedia, match=r"a\.bin ends at byte 200, the index needs 300"):
        Storage(root).read("a.bin", 10, 300)


@pytest.mark.parametrize("path", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_nothing_outside_the_root_is_opened(root: Path, path: str) -> None:
    (root / "link.bin").symlink_to(root.parent / "secret.bin")
    with pytest.raises(CorruptMedia, match="leads out of the root"):
        Storage(root).read(path, 0, 1)


def test_a_missing_file_is_permanent_and_a_failing_one_is_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(root)
    with pytest.raises(CorruptMedia, match=r"b\.bin is gone"):
        storage.read("b.bin", 0, 1)

    def stale(*_: object) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "preadv", stale)
    with pytest.raises(StorageFault, match=r"a\.bin: read failed \(Stale file handle\)"):
        storage.read("a.bin", 0, 1)


def test_many_files_by_many_threads_leave_no_descriptor_open(root: Path) -> None:
    for i in range(600):
        (root / f"{i}.bin").write_bytes(i.to_bytes(2, "big"))
    before = len(os.listdir("/proc/self/fd"))
    storage = Storage(root)
    wrong: list[int] = []

    def read_all(step: int) -> None:
        wrong.extend(i for i in range(0, 600, step) if storage.read(f"{i}.bin", 0, 2)[:2] != i.to_bytes(2, "big"))

    threads = [threading.Thread(target=read_all, args=(step,)) for step in (1, 2, 3, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage.close()
    assert wrong == []
    assert len(os.listdir("/proc/self/fd")) == before
