"""How decoding scales: two threads of one process, and two processes, against one thread; wall time, in turns."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from framefeed.request import ClipRequest


def scaling(root: Path, requests: Sequence[ClipRequest], *, rounds: int) -> dict[str, float]:
    """Median ratio of clips a second: two threads over one, and two processes over one. Wants two idle cores."""
    ratios: dict[str, list[float]] = {"two threads": [], "two processes": []}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in range(rounds + 1):
            one_s = pool.submit(_wall_s, root, requests, 1, time.time()).result()
            threads_s = pool.submit(_wall_s, root, requests, 2, time.time()).result()
            start_at = time.time() + 0.5
            both = [pool.submit(_wall_s, root, requests, 1, start_at) for _ in range(2)]
            ratios["two threads"].append(2 * one_s / threads_s)
            ratios["two processes"].append(2 * one_s / max(future.result() for future in both))
    return {name: round(statistics.median(values[1:]), 2) for name, values in ratios.items()}


def _wall_s(root: Path, requests: Sequence[ClipRequest], threads: int, start_at: float) -> float:
    """Seconds in which each of `threads` threads decodes all requests, from `start_at` (time.time()) on."""
    library = Library(root)
    ready = threading.Barrier(threads + 1)

    def decode_all() -> None:
        engine = Engine(library)
        buffer = np.zeros(max(request.clip_bytes for request in requests), np.uint8)
        engine.decode(requests[0], buffer)
        ready.wait()
        for request in requests:
            engine.decode(request, buffer)

    workers = [threading.Thread(target=decode_all) for _ in range(threads)]
    for worker in workers:
        worker.start()
    time.sleep(max(0.0, start_at - time.time()))
    ready.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began
