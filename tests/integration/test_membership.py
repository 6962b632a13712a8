"""Servers that come and go while a trainer runs: found in a folder or by name, and what they do changes no byte."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from decode_server.service.membership.registry import write_entry
from framefeed.manifest import read_manifest
from framefeed.server_entry import SUFFIX, host_id
from tests.clip_servers import ClipServer
from tests.entries import entry
from tests.integration.serving import SERVE, Server, wait_until
from tests.integration.test_client import check, loader
from tests.integration.test_feed import OPTIONS, POLICY, prints, root
from trainer_client.fleet.watchdog import Stalled
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import VideoWindows

__all__ = ["root"]  # the fixture of real videos


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    folder = tmp_path / "servers"
    folder.mkdir()
    return folder


def enter(registry: Path, server: ClipServer) -> Path:
    """Write a fake server's entry, as if it renewed it for ever."""
    path = registry / f"{server.port}{SUFFIX}"
    write_entry(path, entry(server=server.url, endpoints=(server.url,), host=host_id(), lease_s=3600.0))
    return path


def take(run: ClipLoader, batches: int) -> None:
    for _ in range(batches):
        check(next(run))


def test_a_trainer_started_before_any_server_waits_for_one(registry: Path) -> None:
    with loader(f"registry://{registry}", look_every_s=0.05) as run, ClipServer() as server:
        enter(registry, server)
        for batch in run:
            check(batch)
        assert run.stats.conserved


def test_a_trainer_that_waits_in_vain_says_for_what(registry: Path) -> None:
    wanted = rf"no clip for .* servers come from registry://{registry} names no server"
    with loader(f"registry://{registry}", look_every_s=0.05, stall_s=0.5) as run, pytest.raises(Stalled, match=wanted):
        next(run)


def test_a_folder_that_is_not_there_yet_is_waited_for_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = tmp_path / "later"
    with loader(f"registry://{registry}", look_every_s=0.05) as run, ClipServer() as server:
        with caplog.at_level(logging.WARNING):
            run._feed = run._new_feed()
            run._feed.start()
            wait_until("it said so", lambda: "cannot be looked at (No such file or directory)" in caplog.text)
        registry.mkdir()
        enter(registry, server)
        take(run, 3)


def test_servers_come_and_go_by_their_entries(registry: Path) -> None:
    with (
        ClipServer() as first,
        ClipServer() as second,
        loader(f"registry://{registry}", look_every_s=0.05, steps=None, prefetch_batches=2, affinity_slack=None) as run,
    ):
        entries = [enter(registry, first)]
        take(run, 3)
        entries.append(enter(registry, second))
        while not run.stats.requests.get((second.url, "ok")):
            take(run, 1)
        entries[0].unlink()
        first.stop()
        while first.url in run.stats.servers:
            take(run, 1)
        take(run, 5)
        assert set(run.stats.servers) == {second.url}
        assert run.stats.conserved


def test_garbage_in_the_folder_harms_nobody(registry: Path) -> None:
    (registry / f"half{SUFFIX}").write_text('{"framefeed_server": 1, "endp')
    (registry / f"strange{SUFFIX}").write_text(entry(endpoints=("tcp://", "nonsense", "tcp://a b:99")).pack())
    with ClipServer() as server, loader(f"registry://{registry}", look_every_s=0.05) as run:
        enter(registry, server)
        take(run, 5)


def test_every_address_of_a_name_serves() -> None:
    with ClipServer() as server, loader(f"dns+tcp://localhost:{server.port}", look_every_s=0.05) as run:
        take(run, 5)
        assert server.url in run.stats.servers


def real_loader(root: Path, registry: Path, **options: Any) -> ClipLoader:
    chosen = {"batch_clips": 3, "run_seed": 7, "attempt_s": 30.0, "stall_s": 90.0, "prefetch_batches": 2, **options}
    servers = [f"registry://{registry}"]
    dataset = VideoWindows(read_manifest(root), window_s=1.0)
    for_all = {"hedge_share": 0.0, "affinity_slack": None}  # each server has its share, and each clip is asked for once
    return ClipLoader(dataset, POLICY, LoaderOptions(servers=servers, look_every_s=0.2, **for_all, **chosen))


@contextmanager
def real_servers(root: Path, registry: Path, logs: Path) -> Iterator[Callable[[], Server]]:
    """A function that starts one more server; all are gone after it."""
    with ExitStack() as stack:
        args = (str(root), *OPTIONS, "--registry", str(registry), "--lease-s", "9")
        yield lambda: stack.enter_context(Server(logs, *args, program=SERVE))


def failures(run: ClipLoader) -> dict[str, int]:
    """Requests whose answer was neither a clip nor "I am leaving"."""
    return {outcome: count for outcome, count in run.stats.dropped.items() if outcome != "draining"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_server_then_four_then_two_in_one_run(root: Path, registry: Path, tmp_path: Path) -> None:
    """No restart of the trainer, the same bytes as undisturbed, each clip once."""
    with real_servers(root, registry, tmp_path) as start, real_loader(root, registry) as run:
        servers = [start()]
        batches = [prints(next(run)) for _ in range(10)]
        servers += [start() for _ in range(3)]
        while len([s for s in servers if run.stats.requests.get((s.endpoint, "ok"))]) < 4:
            batches.append(prints(next(run)))
        for server in servers[:2]:
            server.process.send_signal(signal.SIGTERM)
        while set(run.stats.servers) != {server.endpoint for server in servers[2:]}:
            batches.append(prints(next(run)))
        batches += [prints(next(run)) for _ in range(10)]
        assert [server.wait() for server in servers[:2]] == [0, 0]
        assert failures(run) == {}
        assert run.stats.dropped_replies == {}
        assert run.stats.conserved
        with real_loader(root, registry, steps=len(batches)) as undisturbed:
            assert [prints(batch) for batch in undisturbed] == batches


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rolling_restart_of_every_server_fails_no_request(root: Path, registry: Path, tmp_path: Path) -> None:
    """Each of three servers is drained and started anew, one after another, while one trainer runs."""
    with real_servers(root, registry, tmp_path) as start, real_loader(root, registry) as run:
        servers, batches = [start() for _ in range(3)], []
        for server in servers:
            before = run.stats.requests.get((server.endpoint, "ok"), 0)
            while run.stats.requests.get((server.endpoint, "ok"), 0) < before + 3:
                batches.append(prints(next(run)))
            server.process.send_signal(signal.SIGTERM)
            while server.process.poll() is None:
                batches.append(prints(next(run)))
            assert server.wait() == 0, server.log()
            server.restart()
        batches += [prints(next(run)) for _ in range(10)]
        assert failures(run) == {}
        assert run.stats.dropped_replies == {}
        assert run.stats.conserved
        with real_loader(root, registry, steps=len(batches)) as undisturbed:
            assert [prints(batch) for batch in undisturbed] == batches
