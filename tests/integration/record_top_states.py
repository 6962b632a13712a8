"""`python -m tests.integration.record_top_states [STATE ...]`: runs that have one trouble each, as `/metrics` tells it.

Writes what tests/unit/top reads: of each state one file with every page at two times. The pages are real servers' and
feeds', without comments and what `top` does not read. It is run by hand, on a machine that does nothing else.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from decode_server.indexing.index import Index
from framefeed.manifest import read_manifest
from tests.chaos.hosts import Host
from tests.integration.serving import SERVE, Server
from tests.integration.test_starvation_causes import BATCH, POLICY, slow, windows
from tests.unit.top.recorded_states import FOLDER, page_heading
from tests.videos import make_numbered_video
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset, Sample, VideoWindows

PAUSE = threading.Event()  # never set: a step of a trainer that has its data


class Recorder:
    """Pages of a run, and what they said at some times."""

    def __init__(self) -> None:
        self.text = ""
        self._pages: list[tuple[str, Callable[[], str]]] = []
        self._began_s = time.monotonic()

    def serve(self, server: Server) -> Server:
        """Read a server's page as well."""
        self._pages.append((server.url + "/metrics", lambda: server.get("/metrics")[1]))
        return server

    @contextlib.contextmanager
    def train(self, dataset: Dataset, servers: list[Server], *, rank: int = 0, **options: Any) -> Iterator[ClipLoader]:
        """A rank behind its first batch."""
        registry = CollectorRegistry()
        chosen = {"batch_clips": BATCH, "run_seed": 7 + rank, "stall_s": 60.0, **options}
        ends = [server.endpoint for server in servers]
        with ClipLoader(dataset, POLICY, LoaderOptions(servers=ends, **chosen), registry=registry) as loader:
            next(loader)
            text = lambda: generate_latest(registry).decode().replace('rank="0"', f'rank="{rank}"')  # noqa: E731
            self._pages.append((f"http://trainer:{9600 + rank}/metrics", text))
            yield loader

    def look(self) -> None:
        """Note what all pages say now."""
        at_s = time.monotonic() - self._began_s
        for url, read in self._pages:
            try:
                lines = [line for line in read().splitlines() if _is_read(line)]
            except OSError as error:
                self.text += page_heading(url, at_s, str(error)) + "\n"
            else:
                self.text += "\n".join([page_heading(url, at_s), *lines]) + "\n"

    def steps(self, loader: ClipLoader, count: int, *, step_s: float = 0.0) -> None:
        """Take so many batches, with a pause after each."""
        for _ in range(count):
            next(loader)
            PAUSE.wait(step_s)


def _is_read(line: str) -> bool:
    name = line.partition("{")[0]
    return name.startswith("framefeed_") and (not name.endswith("_bucket") or "storage" in name)


def decode_bound(r: Recorder, root: Path, tmp: Path) -> None:
    """Threads decode all the time, and the trainer could take more."""
    with slow(root, tmp, "decode", 0.25, threads=2) as s, r.train(windows(root), [r.serve(s)]) as loader:
        r.steps(loader, 3, step_s=0.3)
        r.look()
        r.steps(loader, 12, step_s=0.3)
        r.look()


def storage_bound(r: Recorder, root: Path, tmp: Path) -> None:
    with slow(root, tmp, "read", 0.5) as s, r.train(windows(root), [r.serve(s)]) as loader:
        r.steps(loader, 4)
        r.look()
        r.steps(loader, 10)
        r.look()


def front_bound(r: Recorder, root: Path, tmp: Path) -> None:
    with slow(root, tmp, "front", 0.25) as s, r.train(windows(root), [r.serve(s)], prefetch_batches=4) as loader:
        r.steps(loader, 4)
        r.look()
        r.steps(loader, 8)
        r.look()


def network_bound(r: Recorder, root: Path, tmp: Path) -> None:
    options = ("--workers", "1", "--threads", "2", "--public", "--insecure")
    with Host(0) as far:
        far.narrow_cable("20mbit")
        bind = ("--bind", f"tcp://{far.address}:0", "--metrics-host", far.address)
        with (
            Server(tmp, str(root), *options, *bind, program=SERVE, under=far.enter) as s,
            r.train(windows(root), [r.serve(s)], prefetch_batches=2) as loader,
        ):
            r.look()
            r.steps(loader, 10)
            r.look()


def client_bound(r: Recorder, root: Path, tmp: Path) -> None:
    with (
        slow(root, tmp, "decode", 0.25) as s,
        r.train(windows(root), [r.serve(s)], inflight_bytes=POLICY.clip_bytes) as loader,
    ):
        r.look()
        r.steps(loader, 6)
        r.look()


def trainer_bound(r: Recorder, root: Path, tmp: Path) -> None:
    """The consumer takes its time, and all is there when it asks."""
    with slow(root, tmp, "decode", 0.0) as s, r.train(windows(root), [r.serve(s)]) as loader:
        r.steps(loader, 4, step_s=0.4)
        r.look()
        r.steps(loader, 10, step_s=0.4)
        r.look()


def straggler(r: Recorder, root: Path, tmp: Path) -> None:
    """Of four ranks the third has a dataset that takes its time."""

    class Slow(list[Sample]):
        def __getitem__(self, index: Any) -> Any:
            PAUSE.wait(0.2)
            return super().__getitem__(index)

    whole = windows(root)
    lame = Slow(whole[index] for index in range(len(whole)))
    with slow(root, tmp, "decode", 0.0) as s, contextlib.ExitStack() as stack:
        r.serve(s)
        loaders = [stack.enter_context(r.train(lame if n == 2 else whole, [s], rank=n)) for n in range(4)]
        pool = stack.enter_context(ThreadPoolExecutor(4))
        list(pool.map(lambda loader: r.steps(loader, 3, step_s=0.3), loaders))
        r.look()
        list(pool.map(lambda loader: r.steps(loader, 10 if loader is loaders[2] else 25, step_s=0.3), loaders))
        r.look()


def slow_server(r: Recorder, root: Path, tmp: Path) -> None:
    with (
        slow(root, tmp, "decode", 0.0) as fast,
        slow(root, tmp, "decode", 3.0) as lame,
        r.train(
            windows(root), [r.serve(fast), r.serve(lame)], affinity_slack=None, hedge_share=0.0, attempt_s=60.0
        ) as loader,
    ):
        r.look()
        r.steps(loader, 8)
        r.look()


def dead_server(r: Recorder, root: Path, tmp: Path) -> None:
    """One of two servers ends, the other cannot do all."""
    with (
        slow(root, tmp, "decode", 0.2, threads=2) as one,
        slow(root, tmp, "decode", 0.2, threads=2) as two,
        r.train(windows(root), [r.serve(one), r.serve(two)]) as loader,
    ):
        r.steps(loader, 8, step_s=0.28)
        r.look()
        two.process.kill()
        r.steps(loader, 25, step_s=0.28)
        r.look()


def no_server(r: Recorder, root: Path, tmp: Path) -> None:
    with slow(root, tmp, "decode", 0.0) as s, r.train(windows(root), [r.serve(s)]) as loader:
        r.steps(loader, 3)
        r.look()
        s.process.kill()
        s.wait()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(r.steps, loader, 40)  # ends with the loader
            PAUSE.wait(5.0)
            r.look()
            loader.close()


STATES = (
    decode_bound,
    storage_bound,
    front_bound,
    network_bound,
    client_bound,
    trainer_bound,
    straggler,
    slow_server,
    dead_server,
    no_server,
)


def main() -> None:
    """Record the states that are named, or all."""
    FOLDER.mkdir(exist_ok=True)
    for state in STATES:
        if sys.argv[1:] and state.__name__ not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as name:
            root, tmp = Path(name) / "videos", Path(name)
            root.mkdir()
            for number in range(4):
                options = {"preset": "ultrafast", "g": "8"}
                make_numbered_video(
                    root / f"clip{number}.mp4", frames=120, width_px=320, height_px=240, options=options
                )
            Index(root=root, jobs=1).run()
            assert len(VideoWindows(read_manifest(root), window_s=1.0))
            recorder = Recorder()
            state(recorder, root, tmp)
        (FOLDER / f"{state.__name__}.txt").write_text(recorder.text)
        print(state.__name__, len(recorder.text))


if __name__ == "__main__":
    main()
