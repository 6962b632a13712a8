"""A worker reads while it decodes: seen by what goes on at the same time, never by how long it takes.

The worker, its threads, its socket and the engine are the product's; only files are opened by a storage that the test
holds up, or watches.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decode_server.clips.clip_reader import ClipReader, ReadClips
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.clips.media_files import DescriptorFile
from decode_server.clips.packet_bytes import HELD_BYTES
from decode_server.clips.storage import Seams
from decode_server.indexing.index import build_index
from decode_server.service.workers.read_depth import readers
from decode_server.service.workers.worker import DecodeBackend, SharedMemory, Worker
from decode_server.service.workers.worker_messages import Done, Stuck, Task, Tasks, pack_message, unpack_message
from framefeed.clip import ClipInfo
from framefeed.crops import RandomResizedCrop
from framefeed.errors import Cancelled
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.wire import DecodeCall, pack_call
from tests.videos import make_numbered_video

PATIENCE_S = 20.0
CLIPS = 4


class Storage:
    """Reads of media wait at `gate` while it is closed; how many do is `at_gate`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Semaphore(0)
        self.media_reads = 0

    def open_file(self, path: Path) -> _GatedFile:
        return _GatedFile(path, self)


class _GatedFile(DescriptorFile):
    def __init__(self, path: Path, storage: Storage) -> None:
        super().__init__(path)
        self._storage, self._is_media = storage, path.suffix == ".mp4"

    def read_into(self, buffer: memoryview, offset: int) -> int:
        if self._is_media:
            self._storage.media_reads += 1
            self._storage.at_gate.release()
            assert self._storage.gate.wait(PATIENCE_S)
        return super().read_into(buffer, offset)


class HeldEngine:
    """The engine, whose decodes wait for `gate` once they have begun."""

    def __init__(self, engine: Engine, gate: threading.Event, begun: threading.Semaphore) -> None:
        self._engine, self._gate, self._begun = engine, gate, begun

    def decode_together(self, *args: Any, cancelled: Callable[[], bool], ahead: ReadClips | None) -> list[ClipInfo]:
        self._begun.release()
        assert self._gate.wait(PATIENCE_S)
        return self._engine.decode_together(*args, cancelled=cancelled, ahead=ahead)

    def close(self) -> None:
        self._engine.close()


class Bench:
    """One worker of one decode thread, and the front's end of its socket."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage()
        self.library = Library(root, seams=Seams(open_file=self.storage.open_file))
        self.decoding, self.begun = threading.Event(), threading.Semaphore(0)
        self.decoding.set()
        self.clip_bytes = request(0).clip_bytes
        self.pool, self.flags = bytearray(self.clip_bytes * 64), bytearray(64)
        self.front, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.front.settimeout(PATIENCE_S)
        backend = DecodeBackend(
            engine=lambda: HeldEngine(Engine(self.library), self.decoding, self.begun),
            reader=ClipReader(self.library),
            codec=lambda video: "h264",
            watch=self.library.watch,
            fingerprint="real",
            videos=len(self.library.manifest.videos),
        )
        shared = SharedMemory(buffer_pool=memoryview(self.pool), cancel_flags=memoryview(self.flags))
        self.worker = Worker(channel, shared, backend=backend, server="s", threads=1)
        loops = [self.worker.decode, *[self.worker.read] * readers(1)]
        for loop in loops:
            threading.Thread(target=loop, daemon=True).start()

    def send(self, number: int, *, video: int = 0) -> None:
        header = pack_call(DecodeCall(attempt=number, deadline_s=60.0, request=request(number, video=video)))
        task = Task(number, number * self.clip_bytes, self.clip_bytes, 0.0, number, header)
        self.front.send(pack_message(Tasks((task,))))

    def receive(self) -> Done | Stuck:
        message = unpack_message(self.front.recv(1 << 17))
        assert isinstance(message, Done | Stuck)
        return message

    def ends(self, count: int) -> dict[int, Done]:
        return {done.id: done for done in (self.receive() for _ in range(count)) if isinstance(done, Done)}

    def pixels(self, number: int) -> bytes:
        return bytes(self.pool[number * self.clip_bytes : (number + 1) * self.clip_bytes])


def request(number: int, *, video: int = 0) -> ClipRequest:
    start_s = 0.25 * (number % 8)
    return ClipRequest(
        video=f"v{video}", start_s=start_s, end_s=start_s + 1, sampling=Segments(frames=4),
        crop=RandomResizedCrop(), width_px=224, height_px=224, seed=number,
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for video in range(2):
        make_numbered_video(folder / f"v{video}.mp4", frames=90 + video, width_px=256, height_px=144)
    build_index(folder)
    return folder


@pytest.fixture
def bench(root: Path) -> Iterator[Bench]:
    bench = Bench(root)
    yield bench
    bench.storage.gate.set()
    bench.decoding.set()
    bench.front.close()


def taken(semaphore: threading.Semaphore, times: int) -> bool:
    return all(semaphore.acquire(timeout=PATIENCE_S) for _ in range(times))


def test_several_clips_are_read_while_one_is_decoded(bench: Bench) -> None:
    bench.decoding.clear()
    bench.send(0)
    assert taken(bench.begun, 1), "the first is being decoded"
    assert taken(bench.storage.at_gate, 1)
    bench.storage.gate.clear()
    for number in range(1, 1 + CLIPS):
        bench.send(number)
    assert taken(bench.storage.at_gate, 2), "the storage has several reads at a time, whatever the decoder does"
    bench.storage.gate.set()
    bench.decoding.set()
    ends = bench.ends(1 + CLIPS)
    assert {done.outcome for done in ends.values()} == {"clip"}


def test_what_was_read_ahead_is_the_same_clip(bench: Bench, root: Path) -> None:
    engine = Engine(Library(root))
    for number in range(8):
        bench.send(number, video=number % 2)
    ends = bench.ends(8)
    for number in range(8):
        wanted = np.empty(bench.clip_bytes, np.uint8)
        engine.decode(request(number, video=number % 2), wanted)
        assert bench.pixels(number) == wanted.tobytes()
        assert set(ends[number].stage_s) == {"queue", "read", "decode", "scale"}
        assert min(ends[number].stage_s.values()) >= 0
        assert ends[number].effort.reads_s, "what its reads took is told with it"


def test_what_is_cancelled_between_read_and_decode_is_not_decoded(bench: Bench) -> None:
    bench.decoding.clear()
    bench.send(0)
    assert taken(bench.begun, 1)
    bench.send(1)
    assert taken(bench.storage.at_gate, 2), "it was read"
    bench.flags[1] = 1
    bench.decoding.set()
    assert {number: done.outcome for number, done in bench.ends(2).items()} == {0: "clip", 1: "cancelled"}
    assert not bench.begun.acquire(blocking=False), "its decoding never began"


def test_what_is_cancelled_before_it_is_read_is_not_read(bench: Bench) -> None:
    bench.flags[0] = 1
    bench.send(0)
    assert bench.ends(1)[0].outcome == "cancelled"
    assert bench.storage.media_reads == 0


def test_a_read_that_hangs_is_reported_once_and_holds_up_no_other(bench: Bench) -> None:
    bench.storage.gate.clear()
    bench.send(0)
    assert taken(bench.storage.at_gate, 1)
    bench.worker.report_stuck(0.0)
    bench.worker.report_stuck(0.0)
    bench.storage.gate.set()
    stuck = bench.receive()
    assert isinstance(stuck, Stuck)
    assert (stuck.id, "v0.mp4" in stuck.reason, stuck.ahead) == (0, True, True)
    done = bench.receive()
    assert isinstance(done, Done)


def test_reading_ahead_is_bounded_by_what_it_may_take(root: Path) -> None:
    library = Library(root)
    read = ClipReader(library).open([request(0)])
    (total,) = [packets.ahead_bytes for _, packets in read.chunks]
    assert 0 < read.ahead_bytes == total <= HELD_BYTES
    read.read_ahead(total - 1)
    assert library.watch.take_lookups() is not None
    assert [operation for operation, _ in library.watch.take_times()].count("read") == 1, "only the packet index"
    read.read_ahead(total)
    assert [operation for operation, _ in library.watch.take_times()].count("read") >= 1
    wanted, found = (np.empty(request(0).clip_bytes, np.uint8) for _ in range(2))
    Engine(library).decode(request(0), wanted)
    library.watch.take_times()
    Engine(library).decode_together([request(0)], [found], ahead=read)
    assert library.watch.take_times() == [], "nothing is read twice"
    assert np.array_equal(wanted, found)


def test_what_is_cancelled_while_it_is_read_ahead_stops(root: Path) -> None:
    read = ClipReader(Library(root)).open([request(0)])
    with pytest.raises(Cancelled):
        read.read_ahead(read.ahead_bytes, cancelled=lambda: True)
