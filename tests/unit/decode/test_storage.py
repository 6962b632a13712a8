"""Reads: exact bytes with padding, confined to the root, failing storage told apart from bad media and tried again."""

import errno
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_server.clips.read_watch import RETRY, ReadWatch
from decode_server.clips.storage import BACKOFF_S, PADDING_BYTES, Seams, Storage
from framefeed.errors import CorruptMedia, ResourceExhausted, StorageFault
from tests.faulty_storage import KINDS, FaultyFiles, Trouble, ending, failing, halved, hanging

TRIES = len(BACKOFF_S) + 1


@dataclass
class Bench:
    """A storage, what goes wrong with it, how long it rested, and what it counted."""

    files: FaultyFiles
    rests_s: list[float]
    watch: ReadWatch
    storage: Storage


def bench(root: Path) -> Bench:
    files, rests_s, watch = FaultyFiles(), list[float](), ReadWatch()
    seams = Seams(open_file=files, sleep=rests_s.append)
    return Bench(files, rests_s, watch, Storage(root, watch=watch, seams=seams))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.bin").write_bytes(bytes(range(200)))
    (tmp_path / "secret.bin").write_bytes(b"secret")
    return tmp_path / "root"


WANTED = bytes(range(10, 20)) + bytes(PADDING_BYTES)


def test_reads_the_range_and_pads_it_with_zeros(root: Path) -> None:
    watch = ReadWatch()
    storage = Storage(root, watch=watch)
    assert storage.read("a.bin", 10, 20) == WANTED
    assert storage.read("a.bin", 10, 20, anew=True) == WANTED
    assert watch.take() == {}
    storage.close()
    storage.close()


def test_a_file_that_ends_early_is_bad_media_once_it_does_so_opened_anew(root: Path) -> None:
    b = bench(root)
    with pytest.raises(CorruptMedia, match=r"a\.bin ends at byte 200, the index needs 300, tried 2 times"):
        b.storage.read("a.bin", 10, 300)
    assert b.files.opened["a.bin"] == 2
    assert b.watch.take() == {"shrunk": 2, RETRY: 1}


def test_a_file_that_is_whole_again_when_opened_anew_is_read(root: Path) -> None:
    b = bench(root)
    whole = (root / "a.bin").read_bytes()
    (root / "a.bin").write_bytes(whole[:15])

    def grow(rest_s: float) -> None:
        (root / "a.bin").write_bytes(whole)

    storage = Storage(root, watch=b.watch, seams=Seams(open_file=b.files, sleep=grow))
    assert storage.read("a.bin", 10, 20) == WANTED
    assert b.watch.take() == {"shrunk": 1, RETRY: 1}


@pytest.mark.parametrize("path", ["../secret.bin", "/etc/passwd", "link.bin"])
def test_nothing_outside_the_root_is_opened(root: Path, path: str) -> None:
    (root / "link.bin").symlink_to(root.parent / "secret.bin")
    with pytest.raises(CorruptMedia, match="leads out of the root"):
        Storage(root, watch=ReadWatch()).read(path, 0, 1)


def test_a_loop_of_links_and_a_folder_are_bad_media_at_once(root: Path) -> None:
    (root / "loop.bin").symlink_to("loop.bin")
    (root / "folder.bin").mkdir()
    b = bench(root)
    for path in ("loop.bin", "folder.bin", "a.bin/b.bin"):
        with pytest.raises(CorruptMedia, match="cannot be read"):
            b.storage.read(path, 0, 1)
    assert b.rests_s == []


@pytest.mark.parametrize(("number", "kind"), KINDS.items(), ids=str)
def test_a_failing_read_is_tried_again_on_a_new_handle(root: Path, number: int, kind: str) -> None:
    b = bench(root)
    b.files.reading.extend([failing(number)] * (TRIES - 1))
    assert b.storage.read("a.bin", 10, 20) == WANTED
    assert b.files.opened["a.bin"] == TRIES
    assert b.rests_s == list(BACKOFF_S)
    assert b.watch.take() == {kind: TRIES - 1, RETRY: TRIES - 1}
    b.storage.close()
    assert b.files.closed == b.files.opened


def test_a_storage_that_goes_on_failing_is_another_servers_turn(root: Path) -> None:
    b = bench(root)
    b.files.reading.extend([failing(errno.ESTALE)] * TRIES)
    with pytest.raises(StorageFault, match=rf"a\.bin: read failed \(Stale file handle\), tried {TRIES} times"):
        b.storage.read("a.bin", 0, 1)
    assert b.watch.take() == {"stale": TRIES, RETRY: TRIES - 1}
    assert sum(b.rests_s) < 1


def test_an_open_that_fails_is_tried_again(root: Path) -> None:
    b = bench(root)
    b.files.opening.extend([errno.EIO, errno.ESTALE])
    assert b.storage.read("a.bin", 10, 20) == WANTED
    assert b.watch.take() == {"io": 1, "stale": 1, RETRY: 2}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_want_of_descriptors_or_memory_is_neither_the_storages_fault_nor_the_clips(root: Path, number: int) -> None:
    b = bench(root)
    b.files.opening.extend([number] * TRIES)
    with pytest.raises(ResourceExhausted, match=rf"a\.bin: cannot be read here now \(.*\), tried {TRIES} times"):
        b.storage.read("a.bin", 10, 20)
    assert b.storage.read("a.bin", 10, 20) == WANTED


def test_lost_permission_is_a_fault_and_is_tried_once_more(root: Path) -> None:
    b = bench(root)
    b.files.opening.extend([errno.EACCES, errno.EACCES])
    with pytest.raises(StorageFault, match="Permission denied"):
        b.storage.read("a.bin", 0, 1)
    assert len(b.rests_s) == 1


def test_a_read_that_ends_before_its_file_is_the_storages_fault(root: Path) -> None:
    b = bench(root)
    b.files.reading.append(ending)
    assert b.storage.read("a.bin", 10, 20) == WANTED
    assert b.watch.take() == {"short": 1, RETRY: 1}
    b.files.reading.extend([ending] * TRIES)
    with pytest.raises(StorageFault, match=r"a read ended at byte 10 of 200"):
        b.storage.read("a.bin", 10, 20)


def test_a_missing_file_is_permanent(root: Path) -> None:
    b = bench(root)
    with pytest.raises(CorruptMedia, match=r"b\.bin is gone; index the root again"):
        b.storage.read("b.bin", 0, 1)
    assert b.rests_s == []


@pytest.mark.parametrize("gone", ["emptied", "removed"])
def test_a_missing_file_whose_root_went_with_it_is_not(root: Path, gone: str) -> None:
    b = bench(root)
    (root / "a.bin").unlink()
    if gone == "removed":
        root.rmdir()
    with pytest.raises(StorageFault, match=rf"a\.bin: read failed \(the root {root} "):
        b.storage.read("a.bin", 0, 1)
    assert b.watch.take()["unmounted"] == TRIES


def test_a_missing_file_under_a_lost_mount_is_not_either(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench(root)
    monkeypatch.setattr(os.path, "ismount", lambda path: False)
    with pytest.raises(StorageFault, match="nothing is mounted at"):
        b.storage.read("b.bin", 0, 1)


def test_reading_anew_bypasses_what_was_open_and_cached(root: Path) -> None:
    b = bench(root)
    b.storage.read("a.bin", 10, 20)
    b.storage.read("a.bin", 12, 20)
    assert b.files.opened["a.bin"] == 1
    assert b.storage.read("a.bin", 10, 20, anew=True) == WANTED
    assert (b.files.opened["a.bin"], b.files.forgotten) == (2, [(10, 20)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from([failing(errno.EIO), failing(errno.ESTALE), ending, halved, None]), min_size=1, max_size=12
    )
)
def test_whatever_fails_the_bytes_are_right_or_it_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, script: list[Trouble | None]
) -> None:
    root = tmp_path_factory.getbasetemp() / "script"
    root.mkdir(exist_ok=True)
    (root / "a.bin").write_bytes(bytes(range(200)))
    b = bench(root)
    b.files.reading.extend(trouble or (lambda file, buffer, at: file.read_into(buffer, at)) for trouble in script)
    try:
        assert b.storage.read("a.bin", 10, 20) == WANTED
    except StorageFault:
        faults = b.watch.take()
        assert faults.pop(RETRY) == TRIES - 1
        assert sum(faults.values()) == TRIES
    b.storage.close()
    assert b.files.closed == b.files.opened


def test_a_hung_read_holds_up_no_other_and_is_reported_once(root: Path) -> None:
    now_s = [100.0]
    files, watch = FaultyFiles(name="a.bin"), ReadWatch(lambda: now_s[0])
    storage = Storage(root, watch=watch, seams=Seams(open_file=files))
    (root / "b.bin").write_bytes(b"other")
    entered, until = threading.Event(), threading.Event()
    files.reading.append(hanging(entered, until))
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(bytes(storage.read("a.bin", 10, 20))))
    thread.start()
    assert entered.wait(20)
    now_s[0] += 5
    assert storage.read("b.bin", 0, 5)[:5] == b"other"
    assert storage.read("a.bin", 10, 20) == WANTED, "another thread, the same file"
    assert watch.overdue(longer_than_s=6) == []
    (read,) = watch.overdue(longer_than_s=5)
    assert (read.thread, read.path, read.began_s) == (thread.ident, "a.bin", 100.0)
    assert watch.overdue(longer_than_s=5) == []
    storage.close()
    until.set()
    thread.join(20)
    assert got == [WANTED]
    assert files.closed == files.opened, "closed when its last read ended"


def test_a_read_after_the_end_leaves_nothing_open(root: Path) -> None:
    b = bench(root)
    b.storage.close()
    assert b.storage.read("a.bin", 10, 20) == WANTED
    assert b.files.closed == b.files.opened


def test_a_slow_read_is_counted_and_gives_its_bytes(root: Path) -> None:
    now_s = [0.0]
    files, watch = FaultyFiles(), ReadWatch(lambda: now_s[0])

    def slow(file: object, buffer: memoryview, offset: int) -> int:
        now_s[0] += 2
        return halved(file, buffer, offset)  # type: ignore[arg-type]

    files.reading.append(slow)
    assert Storage(root, watch=watch, seams=Seams(open_file=files)).read("a.bin", 10, 20) == WANTED
    assert watch.take() == {"slow": 1}


def test_faults_are_counted_for_the_thread_that_met_them(root: Path) -> None:
    b = bench(root)
    thread = threading.Thread(target=lambda: b.watch.count("io"))
    thread.start()
    thread.join()
    assert b.watch.take() == {}


def test_many_files_by_many_threads_leave_no_descriptor_open(root: Path) -> None:
    for i in range(600):
        (root / f"{i}.bin").write_bytes(i.to_bytes(2, "big"))
    before = len(os.listdir("/proc/self/fd"))
    storage = Storage(root, watch=ReadWatch())
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
