"""Eight ranks that are each restarted three times: every place of the plan once, and nothing left of any of them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.integration.forking_trainer import POLICY, is_right
from tests.integration.serving import PATIENCE_S, Server, wait_until
from tests.integration.ways import new_bind
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample

TRANSPORTS = ("tcp", "shm", "grpc")
RANKS, BATCH_CLIPS = 8, 2
LIVES, STEPS_A_LIFE = 4, 6
STEPS = LIVES * STEPS_A_LIFE
DATASET = [Sample(video="pattern", start_s=i, end_s=i + 1) for i in range(96)]  # so that it is four epochs
PLAN = list(range(RANKS * BATCH_CLIPS * STEPS))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Server]]:
    """Two, each of which can be had by three transports."""
    binds = [word for transport in TRANSPORTS for word in ("--bind", new_bind(transport))]
    options = ("/videos", "--workers", "1", "--buffer-pool-mib", "48")
    with (
        Server(tmp_path, *options, *binds) as one,
        Server(tmp_path, *options, *[word.replace("shm://@", "shm://@two-") for word in binds]) as two,
    ):
        yield [one, two]


def addresses(servers: list[Server], rank: int) -> list[str]:
    """Those of one transport, ranks in turn."""
    return [server.endpoints[rank % len(TRANSPORTS)] for server in servers]


def open_rank(rank: int, urls: list[str], state: dict[str, Any] | None) -> ClipLoader:
    options = LoaderOptions(
        servers=urls,
        batch_clips=BATCH_CLIPS,
        steps=STEPS,
        rank=rank,
        world_size=RANKS,
        run_seed=11,
        prefetch_batches=3,
        stall_s=60.0,
    )
    run = ClipLoader(DATASET, POLICY, options)
    if state is not None:
        run.load_state_dict(state)
    return run


def descriptors(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("framefeed-")]


def who_maps_the_buffers(server: Server) -> set[int]:
    """Processes that have the server's shared memory."""
    maps = Path(f"/proc/{server.pid}/maps").read_text().splitlines()
    (inode,) = {line.split()[4] for line in maps if "/memfd:framefeed-buffers" in line}
    found = set()
    for path in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it has ended
            if f" {inode} " in path.read_text():
                found.add(int(path.parent.name))
    return found


@contextlib.contextmanager
def nothing_left(servers: list[Server]) -> Iterator[None]:
    """After what is done within, all that was leased is back, every client is seen to be gone, none has any."""
    for rank in range(len(TRANSPORTS)):  # what libraries keep for the process is there from now on
        with open_rank(rank, addresses(servers, rank), None) as warm:
            next(warm)
    wait_until("they are closed", lambda: not names_of_threads())
    before = {pid: descriptors(pid) for pid in (os.getpid(), *(server.pid for server in servers))}
    yield
    gc.collect()
    wait_until("no thread", lambda: not names_of_threads())
    for pid, count in before.items():
        wait_until("no descriptor more", lambda p=pid, n=count: descriptors(p) <= n)  # type: ignore[misc]
    for server in servers:
        wait_until("free buffers", lambda s=server: s.metrics()["framefeed_server_buffer_pool_used_bytes"] == 0)  # type: ignore[misc]
        assert who_maps_the_buffers(server) == {server.pid, *server.workers(), *server.gateways()}


def run_rank(rank: int, urls: list[str]) -> list[int]:
    """All lives of a rank in this process: one ends closed, one dropped, one is sent back to its own state."""
    positions: list[int] = []
    run, state = open_rank(rank, urls, None), None
    for life in range(LIVES):
        for _ in range(STEPS_A_LIFE):
            batch = next(run)
            assert is_right(batch)
            positions += batch.positions.tolist()
        state = run.state_dict()
        if life % 3 == 2:
            run.load_state_dict(state)
            continue
        if life % 3 == 0:
            run.close()
        run = open_rank(rank, urls, state)
    assert list(run) == []
    run.close()
    return positions


@pytest.mark.slow
def test_ranks_in_one_process(servers: list[Server]) -> None:
    with nothing_left(servers), warnings.catch_warnings(), ThreadPoolExecutor(RANKS) as pool:
        warnings.simplefilter("ignore", ResourceWarning)  # for those that are dropped
        lives = pool.map(lambda rank: run_rank(rank, addresses(servers, rank)), range(RANKS))
        assert sorted(chain(*lives)) == PLAN


def live(rank: int, urls: list[str], state: dict[str, Any] | None) -> None:
    """A rank in a process of its own: one line for each step, with the state after it. Its end is not its own."""
    with open_rank(rank, urls, state) as run:
        for batch in run:
            line = {"positions": batch.positions.tolist(), "right": is_right(batch), "state": run.state_dict()}
            print(json.dumps(line), flush=True)


LIVE = "import json, sys; from tests.integration.test_rank_restarts import live; live(*json.loads(sys.argv[1]))"


def lead_rank(rank: int, urls: list[str]) -> list[int]:
    """Have a rank's process live, kill it in the middle of a step, and go on from the last state that it told."""
    positions: list[int] = []
    state = None
    for life in range(LIVES):
        command = [sys.executable, "-c", LIVE, json.dumps([rank, urls, state])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(STEPS_A_LIFE):
                told = json.loads(process.stdout.readline())
                assert told["right"]
                positions += told["positions"]
                state = told["state"]
            if life < LIVES - 1:
                process.kill()
            else:
                assert process.stdout.read() == ""
                assert process.wait(PATIENCE_S) == 0
    return positions


@pytest.mark.slow
def test_ranks_that_are_killed(servers: list[Server]) -> None:
    with nothing_left(servers), ThreadPoolExecutor(RANKS) as pool:
        lives = pool.map(lambda rank: lead_rank(rank, addresses(servers, rank)), range(RANKS))
        assert sorted(chain(*lives)) == PLAN
