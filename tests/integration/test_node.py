"""Eight ranks on one node: they look once for all, whoever leads may be killed, and share one memory budget."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from decode_server.service.membership.registry import write_entry
from framefeed.crops import ResizedCentreCrop
from framefeed.sampling import Segments
from framefeed.server_entry import SUFFIX, host_id
from tests.clip_servers import ClipServer, Manner
from tests.entries import entry
from tests.integration.serving import wait_until
from tests.integration.test_client import BATCH, DATASET, check, loader
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.slots import ordinary_memory
from trainer_client.loader import ClipLoader, LoaderOptions

RANKS = 8
EVERY_S = 0.2
ROOT = Path(__file__).parents[2]


class Rank:
    """One process that looks for servers; what it printed."""

    def __init__(self, registry: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.discovery_rank", str(registry), str(EVERY_S)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def count(self, word: str) -> int:
        return sum(line.split()[0] == word for line in list(self.lines))

    def sees(self, *names: str) -> bool:
        """Whether the last look showed these servers."""
        saw = [line for line in list(self.lines) if line.startswith("saw")]
        return bool(saw) and saw[-1].split()[1:] == sorted(names)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(20)
        self._reader.join(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def node(registry: Path) -> Iterator[list[Rank]]:
    """Eight ranks; whoever is left is killed after it."""
    with ExitStack() as stack:
        ranks = []
        for _ in range(RANKS):
            ranks.append(Rank(registry))
            stack.callback(ranks[-1].end)
        yield ranks


def enter(registry: Path, name: str, beat: int = 1) -> str:
    write_entry(registry / f"{name}{SUFFIX}", entry(server=name, beat=beat, lease_s=3600.0))
    return f"{name}{SUFFIX}"


def all_see(ranks: list[Rank], *names: str) -> None:
    wait_until(f"all see {names}", lambda: all(rank.sees(*names) for rank in ranks))


def leader_of(ranks: list[Rank]) -> Rank:
    """Who looks from now on."""
    before = {rank: rank.count("look") for rank in ranks}
    wait_until("it looks", lambda: any(rank.count("look") > before[rank] + 1 for rank in ranks))
    return max(ranks, key=lambda rank: rank.count("look") - before[rank])


@pytest.mark.slow
def test_one_rank_looks_for_all_and_when_it_is_killed_another_does(tmp_path: Path) -> None:
    names = [enter(tmp_path, f"s{number}") for number in range(100)]
    with node(tmp_path) as ranks:
        all_see(ranks, *names)
        for _ in range(3):
            leader = leader_of(ranks)
            leader.process.send_signal(signal.SIGKILL)
            ranks.remove(leader)
            names.append(enter(tmp_path, f"t{len(ranks)}"))
            all_see(ranks, *names)
        looks, most = sum(rank.count("look") for rank in ranks), max(rank.count("saw") for rank in ranks)
        assert looks <= most + len(ranks), "those of one rank, but for looks while it was not yet told who leads"


def test_an_entry_is_read_once_as_long_as_it_is_the_same_file(tmp_path: Path) -> None:
    names = [enter(tmp_path, name) for name in "abc"]
    with ExitStack() as stack:
        rank = Rank(tmp_path)
        stack.callback(rank.end)
        wait_until("it looks", lambda: rank.count("look") > 5)
        assert rank.count("read") == 3
        enter(tmp_path, "b", beat=2)
        wait_until("it is seen", lambda: rank.count("read") > 3)
        (tmp_path / names[0]).unlink()
        wait_until("it is gone", lambda: rank.sees(*names[1:]))
        assert [line.split()[1] for line in rank.lines if line.startswith("read")] == [*names, names[1]]


@pytest.mark.slow
def test_a_leader_that_hangs_keeps_nobody_from_seeing(tmp_path: Path) -> None:
    names = [enter(tmp_path, "a")]
    with node(tmp_path) as ranks:
        all_see(ranks, *names)
        leader = leader_of(ranks)
        os.kill(leader.process.pid, signal.SIGSTOP)
        ranks.remove(leader)
        names.append(enter(tmp_path, "b"))
        all_see(ranks, *names)
        os.kill(leader.process.pid, signal.SIGCONT)
        all_see([*ranks, leader], *names)


def test_eight_loaders_of_one_node_hold_what_its_budget_says() -> None:
    policy = ClipPolicy(sampling=Segments(frames=4), crop=ResizedCentreCrop(), width_px=224, height_px=224)
    batch_bytes, taken = BATCH * policy.clip_bytes, list[int]()

    def allocate(nbytes: int) -> memoryview:
        taken.append(nbytes)
        return ordinary_memory(nbytes)

    with ExitStack() as stack:
        server = stack.enter_context(ClipServer(Manner(workers=8)))
        options = LoaderOptions(
            servers=[server.url],
            batch_clips=BATCH,
            prefetch_batches=50,
            prefetch_bytes=4 * RANKS * batch_bytes,
            inflight_bytes=2 * RANKS * policy.clip_bytes,
            local_ranks=RANKS,
        )
        runs = [stack.enter_context(ClipLoader(DATASET, policy, options, allocate=allocate)) for _ in range(RANKS)]
        batches = [next(run) for run in runs]
        wait_until("all is prefetched", lambda: all(run.stats.held == 4 * BATCH for run in runs))
        assert sum(taken) <= 4 * RANKS * batch_bytes + sum(batch.pixels.nbytes for batch in batches)
        assert {run.stats.in_flight for run in runs} == {0}


@pytest.mark.parametrize("way", ["registry", "name"])
def test_ranks_that_share_a_look_are_fed(way: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(ClipServer())
        write_entry(tmp_path / f"a{SUFFIX}", entry(endpoints=(server.url,), host=host_id(), lease_s=3600.0))
        url = f"registry://{tmp_path}" if way == "registry" else f"dns+tcp://localhost:{server.port}"
        runs = [stack.enter_context(loader(url, look_every_s=0.5)) for _ in range(RANKS)]
        for _ in range(5):
            for run in runs:
                check(next(run))
