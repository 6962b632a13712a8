"""Each cause of starvation, made on purpose with real servers and clips of 4 x 224 x 224: the wait goes to it.

The page is scraped all the while, so what is judged was also read while the waits lasted.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from decode_server.indexing.index import Index
from framefeed.crops import RandomResizedCrop
from framefeed.manifest import read_manifest
from framefeed.sampling import Segments
from tests.chaos.hosts import Host, hosts_can_be_made
from tests.integration.serving import PATIENCE_S, SERVE, Server
from tests.videos import make_numbered_video
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.measures.wait import CAUSES
from trainer_client.samples import Dataset, Sample, VideoWindows

pytestmark = pytest.mark.calm

POLICY = ClipPolicy(sampling=Segments(frames=4), crop=RandomResizedCrop(), width_px=224, height_px=224)
BATCH = 4
BATCHES = 8
SHARE = 0.8
SCRAPE_S = 0.02
NO_HOSTS = hosts_can_be_made()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        options = {"preset": "ultrafast", "g": "8"}  # little to decode: what is slow is so on purpose
        make_numbered_video(folder / f"clip{number}.mp4", frames=120, width_px=320, height_px=240, options=options)
    Index(root=folder, jobs=1).run()
    return folder


class Scrapes:
    """Scrapes a registry all the time. No counter of waiting may go down, and all waits must have their cause."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.seen: list[tuple[float, dict[str, float]]] = []  # for how long it waits already, and seconds by cause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrapes")

    def take(self) -> dict[str, float]:
        """Seconds by cause now."""
        samples = [sample for family in self._registry.collect() for sample in family.samples]
        waiting_s = next(s.value for s in samples if s.name == "framefeed_trainer_waiting_seconds")
        waits = [s for s in samples if s.name == "framefeed_trainer_data_wait_seconds_total"]
        by_cause = {sample.labels["cause"]: sample.value for sample in waits}
        assert tuple(by_cause) == CAUSES
        self.seen.append((waiting_s, by_cause))
        return by_cause

    def during_waits(self, since: int) -> Counter[str]:
        """Seconds by cause that were first seen while the wait lasted to which they belong."""
        seconds: Counter[str] = Counter()
        for (_, before), (waiting_s, now) in zip(self.seen[since:], self.seen[since + 1 :], strict=False):
            if waiting_s:
                seconds.update({cause: now[cause] - before[cause] for cause in CAUSES})
        return seconds

    def check(self) -> None:
        for (_, before), (_, now) in zip(self.seen, self.seen[1:], strict=False):
            assert all(now[cause] >= before[cause] for cause in CAUSES), (before, now)

    def __enter__(self) -> Scrapes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._over.wait(SCRAPE_S):
            self.take()


class Run:
    """A loader whose consumer only waits, and what was seen of its waits after the first batch."""

    def __init__(self, dataset: Dataset, servers: Sequence[str], **options: Any) -> None:
        self._registry = CollectorRegistry()
        chosen = {"batch_clips": BATCH, "run_seed": 7, "stall_s": 60.0, "servers": servers, **options}
        self.loader = ClipLoader(dataset, POLICY, LoaderOptions(**chosen), registry=self._registry)
        self.scrapes = Scrapes(self._registry)

    def __enter__(self) -> Run:
        self.scrapes.__enter__()
        next(self.loader)
        self.forget()
        return self

    def __exit__(self, *_: object) -> None:
        self.scrapes.__exit__()
        self.loader.close()

    def take(self, batches: int = BATCHES) -> None:
        """Take so many batches."""
        for _ in range(batches):
            next(self.loader)

    def forget(self) -> None:
        """Begin to judge now."""
        self._before, self._since = self.scrapes.take(), len(self.scrapes.seen) - 1

    def check(self, *causes: str) -> None:
        """Most of the wait had one of these causes, in all and in what was seen while waits lasted."""
        after = self.scrapes.take()
        self.scrapes.check()
        whole = Counter({cause: after[cause] - self._before[cause] for cause in CAUSES})
        during = self.scrapes.during_waits(self._since)
        stats = self.loader.stats
        assert sum(stats.wait_ns.values()) == stats.blocked_ns
        told = {cause: f"{whole[cause]:.2f} s, {during[cause]:.2f} s meanwhile" for cause in CAUSES if whole[cause]}
        print(told)
        assert whole.total() > 1.0, "it did not starve"
        for seconds in (whole, during):
            assert sum(seconds[cause] for cause in causes) >= SHARE * seconds.total(), told


@contextlib.contextmanager
def slow(root: Path, tmp_path: Path, stage: str, longer_s: float, *, threads: int = 4) -> Iterator[Server]:
    program = ("-m", "tests.integration.slow_server", stage, str(longer_s))
    options = ("--workers", "1", "--threads", str(threads))
    with Server(tmp_path, str(root), *options, program=program) as server:
        yield server


def windows(root: Path) -> Dataset:
    return VideoWindows(read_manifest(root), window_s=1.0)


@pytest.mark.parametrize(("stage", "longer_s"), [("read", 1.0), ("decode", 1.0), ("front", 0.25)])
def test_a_slow_stage_of_servers(root: Path, tmp_path: Path, stage: str, longer_s: float) -> None:
    few = {"prefetch_batches": 4} if stage == "front" else {}  # a slow thread answers many at once, in any order
    threads = 1 if stage == "read" else 4  # each has eight that read ahead
    with (
        slow(root, tmp_path, stage, longer_s, threads=threads) as server,
        Run(windows(root), [server.endpoint], **few) as run,
    ):
        run.take(4)  # each thread has read the indices of the files
        run.forget()
        run.take()
        run.check(stage)


@pytest.mark.parametrize(
    "options", [{"inflight_bytes": POLICY.clip_bytes}, {"prefetch_bytes": BATCH * POLICY.clip_bytes}]
)
def test_a_small_budget(root: Path, tmp_path: Path, options: dict[str, int]) -> None:
    with (
        slow(root, tmp_path, "decode", 0.25) as one,
        slow(root, tmp_path, "decode", 0.25) as two,
        Run(windows(root), [one.endpoint, two.endpoint], **options) as run,
    ):
        run.take()
        run.check("client_limit")


def test_a_slow_dataset(root: Path, tmp_path: Path) -> None:
    class Slow(list[Sample]):
        def __getitem__(self, index: Any) -> Any:
            time.sleep(0.4)
            return super().__getitem__(index)

    dataset = windows(root)
    samples = Slow(dataset[index] for index in range(len(dataset)))
    with slow(root, tmp_path, "decode", 0.0) as server, Run(samples, [server.endpoint]) as run:
        run.take()
        run.check("plan")


def test_no_server(root: Path, tmp_path: Path) -> None:
    with slow(root, tmp_path, "decode", 0.0) as server, Run(windows(root), [server.endpoint]) as run:
        server.process.kill()
        server.wait()
        back = threading.Timer(6.0, server.restart)
        back.start()
        run.take(12)
        back.join(PATIENCE_S)
        run.check("no_server")


def test_a_server_that_hangs(root: Path, tmp_path: Path) -> None:
    options = {"attempt_s": 2.0, "attempt_min_s": 1.0}
    with slow(root, tmp_path, "decode", 0.0) as server, Run(windows(root), [server.endpoint], **options) as run:
        run.take(40)
        run.forget()
        server.signal(signal.SIGSTOP)
        back = threading.Timer(18.0, server.signal, [signal.SIGCONT])
        back.start()
        run.take(12)
        back.join(PATIENCE_S)
        run.check("no_server")


def test_the_first_batch(root: Path, tmp_path: Path) -> None:
    """From before there is a server: all of it is the start, whatever it waits for."""
    with slow(root, tmp_path, "read", 0.2) as server:
        run = Run(windows(root), [server.endpoint])
        server.process.kill()
        server.wait()
        back = threading.Timer(1.0, server.restart)
        back.start()
        with run:
            back.join(PATIENCE_S)
            wait_s = {cause: seconds for cause, seconds in run.loader.stats.wait_s.items() if seconds}
            assert set(wait_s) == {"first_batch"}
            during = run.scrapes.during_waits(0)
            assert during["first_batch"] == during.total() > 0.5
            run.scrapes.check()


@pytest.mark.skipif(bool(NO_HOSTS), reason=NO_HOSTS)
def test_a_thin_link(root: Path, tmp_path: Path) -> None:
    options = ("--workers", "1", "--threads", "2", "--public", "--insecure")
    with Host(0) as far:
        far.narrow_cable("20mbit")
        bind = ("--bind", f"tcp://{far.address}:0", "--metrics-host", far.address)
        with (
            Server(tmp_path, str(root), *options, *bind, program=SERVE, under=far.enter) as server,
            Run(windows(root), [server.endpoint], prefetch_batches=2) as run,
        ):
            run.take()
            run.check("network")


def test_a_slow_neighbour(root: Path, tmp_path: Path) -> None:
    """One of two servers is slow: its clips hold up batches that are complete otherwise."""
    with (
        slow(root, tmp_path, "decode", 0.0) as fast,
        slow(root, tmp_path, "decode", 3.0) as lame,
        Run(windows(root), [fast.endpoint, lame.endpoint], affinity_slack=None, hedge_share=0.0) as run,
    ):
        run.take(10)
        run.check("decode", "reorder")


def test_others_that_ask_the_same_server(root: Path, tmp_path: Path) -> None:
    """Its threads are busy with the clips of two other clients: the wait is for a turn."""
    with (
        slow(root, tmp_path, "decode", 0.5, threads=2) as server,
        Run(windows(root), [server.endpoint]) as one,
        Run(windows(root), [server.endpoint]) as two,
        Run(windows(root), [server.endpoint]) as run,
        ThreadPoolExecutor(2) as pool,
    ):
        others = [pool.submit(other.take, BATCHES) for other in (one, two)]
        run.take()
        run.check("server_queue")
        for other in others:
            other.result(PATIENCE_S)
