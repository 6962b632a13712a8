"""A loader that nobody closes: its thread, connections and memory go all the same, and Python is told of it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from framefeed.errors import CorruptMedia
from tests.integration.forking_trainer import DATASET, POLICY, is_right
from tests.integration.serving import Server, wait_until
from tests.integration.ways import start
from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample

DROPPED = "was dropped without close"


SLOW = pytest.mark.slow


@pytest.fixture(scope="module", params=["tcp", pytest.param("shm", marks=SLOW), pytest.param("grpc", marks=SLOW)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    transport = str(request.param)
    with start(tmp_path_factory.mktemp(transport), transport) as server:
        yield server


class Slots:
    """Memory of batch slots that knows which of it there still is."""

    def __init__(self) -> None:
        self._made: list[weakref.ref[Any]] = []

    def allocate(self, nbytes: int) -> memoryview:
        memory = np.empty(nbytes, np.uint8)
        self._made.append(weakref.ref(memory))
        return memory.data

    @property
    def left(self) -> int:
        assert self._made
        return sum(made() is not None for made in self._made)


def open_loader(server: Server, slots: Slots, *, video: str = "pattern", **kinds: Any) -> ClipLoader:
    dataset = [Sample(video=video, start_s=s.start_s, end_s=s.end_s) for s in DATASET]
    options = LoaderOptions(servers=[server.endpoint], batch_clips=4, steps=8, prefetch_batches=3, stall_s=30.0)
    return ClipLoader(dataset, POLICY, options, allocate=slots.allocate, **kinds)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("framefeed-")}


def descriptors(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def nothing_left(server: Server) -> Iterator[Slots]:
    """Whatever is done within leaves, soon after it, no thread, descriptor (here or at the server) or slot behind."""
    with open_loader(server, Slots()) as warm:  # what libraries keep for the process is there from now on
        next(warm)
    wait_until("it is closed", lambda: not threads())
    before, at_server, slots = descriptors("self"), descriptors(server.pid), Slots()
    yield slots
    gc.collect()
    wait_until("no thread", lambda: not threads())
    wait_until("no descriptor more", lambda: descriptors("self") <= before)
    wait_until("the server sees it go", lambda: descriptors(server.pid) <= at_server)
    gc.collect()
    assert slots.left == 0


def break_off(server: Server, slots: Slots) -> None:
    for _ in open_loader(server, slots):
        break


def use_up(server: Server, slots: Slots) -> None:
    assert len(list(open_loader(server, slots))) == 8


def fail_within(server: Server, slots: Slots) -> None:
    def train() -> None:
        run = open_loader(server, slots)
        for _ in run:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()


def fail_by_itself(server: Server, slots: Slots) -> None:
    """The error of a clip is raised again and again, and is in the frames that it went through."""
    run = open_loader(server, slots, video="corrupt")
    for _ in range(3):
        with pytest.raises(CorruptMedia):
            next(run)


def tie_a_knot(server: Server, slots: Slots) -> None:
    knot: list[object] = [open_loader(server, slots)]
    next(knot[0])  # type: ignore[call-overload]
    knot.append(knot)


def measure(server: Server, slots: Slots) -> None:
    """A registry that outlives its feeds: the next one has its place."""
    registry = CollectorRegistry()
    for _ in range(2):
        run = open_loader(server, slots, registry=registry)
        next(run)
        assert registry.get_sample_value("framefeed_trainer_batches_total", {"rank": "0"}) == 1
        del run
        gc.collect()
        assert list(registry.collect()) == []


def start_again(server: Server, slots: Slots) -> None:
    run = open_loader(server, slots)
    for _ in range(3):
        next(run)
        run.load_state_dict(run.state_dict())
    next(run)


@pytest.mark.parametrize(
    "drop", [break_off, use_up, fail_within, fail_by_itself, tie_a_knot, measure, start_again], ids=lambda f: f.__name__
)
def test_a_dropped_loader_leaves_nothing_and_says_so(server: Server, drop: Callable[[Server, Slots], None]) -> None:
    with pytest.warns(ResourceWarning, match=DROPPED), nothing_left(server) as slots:
        drop(server, slots)


def test_a_batch_outlives_its_dropped_loader(server: Server) -> None:
    def keep(slots: Slots) -> Batch:
        batch = next(open_loader(server, slots))
        gc.collect()
        return batch

    with nothing_left(server) as slots:
        with pytest.warns(ResourceWarning, match=DROPPED):
            batch = keep(slots)
        wait_until("no thread", lambda: not threads())
        assert is_right(batch)
        gc.collect()
        assert slots.left == 1
        del batch


def test_a_closed_loader_keeps_no_memory(server: Server) -> None:
    with nothing_left(server) as slots:
        run = open_loader(server, slots)
        batches = [next(run) for _ in range(3)]
        run.close()
        assert all(map(is_right, batches))
        gc.collect()
        assert slots.left == 3
        del batches
        assert slots.left == 0
    assert repr(run)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_error_within_the_with_leaves_nothing(server: Server, error: type[BaseException]) -> None:
    def train() -> None:
        with open_loader(server, slots) as run:
            for _ in run:
                raise error

    with nothing_left(server) as slots, pytest.raises(error):
        train()


@pytest.mark.filterwarnings("error")
def test_an_interrupt_while_it_waits_leaves_nothing(server: Server) -> None:
    """Of a run whose server is stopped: there is nothing to come."""

    def interrupt(run: ClipLoader) -> None:
        wait_until("clips are asked for", lambda: run.stats.in_flight > 0)
        os.kill(os.getpid(), signal.SIGINT)

    def train() -> None:
        with open_loader(server, slots) as run:
            next(run)
            server.signal(signal.SIGSTOP)
            for worker in server.workers():
                os.kill(worker, signal.SIGSTOP)
            interrupter = threading.Thread(target=interrupt, args=(run,))
            interrupter.start()
            for _ in run:
                pass

    try:
        with nothing_left(server) as slots:
            with pytest.raises(KeyboardInterrupt):
                train()
            for pid in (server.pid, *server.workers()):
                os.kill(pid, signal.SIGCONT)
    finally:
        for pid in (server.pid, *server.workers()):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("goes_on", [False, True])
def test_an_interrupt_that_leaves_the_lock_taken_stops_nothing(server: Server, goes_on: bool) -> None:
    """Python raises Ctrl-C's exception between a lock and its `with` too: seen once in some ten runs of the test before
    this one on a loaded machine.
    """
    with nothing_left(server) as slots, open_loader(server, slots) as run:
        next(run)
        assert run._feed is not None
        run._feed._lock.acquire()
        if goes_on:
            assert sum(1 for _ in run) > 0


AT_EXIT = """
import sys
from tests.integration.forking_trainer import open_loader
run = open_loader(sys.argv[1:2])
next(run)
print("fed", flush=True)
if sys.argv[2] == "failing":
    raise ZeroDivisionError
if sys.argv[2] == "in a cycle":
    run.itself = run
"""


@pytest.mark.parametrize("how", ["at the end", "failing", "in a cycle"])
def test_a_program_ends_without_closing_it(server: Server, how: str) -> None:
    before = descriptors(server.pid)
    command = [sys.executable, "-c", AT_EXIT, server.endpoint, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "fed\n"
    assert done.returncode == (how == "failing"), done.stderr
    assert done.stderr == "" or (how == "failing" and done.stderr.endswith("\nZeroDivisionError\n"))
    wait_until("the server sees it go", lambda: descriptors(server.pid) <= before)


def test_python_is_told_where_warnings_are_shown(server: Server) -> None:
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", AT_EXIT, server.endpoint, "at the end"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "ResourceWarning: ClipLoader(step 1 of 24, rank 0 of 1, 4 clips of (4, 224, 224, 3)" in done.stderr
    assert DROPPED in done.stderr
