"""A loader that starts its own server: the same bytes as of any other, started again when it dies, gone with it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from framefeed.errors import BadInput
from framefeed.manifest import read_manifest
from tests.integration.local_trainer import children_of, servers_of
from tests.integration.serving import SERVE, Server, wait_until
from tests.integration.test_feed import OPTIONS, POLICY, root
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample, VideoWindows

__all__ = ["root"]  # the fixture of real videos

REPOSITORY = Path(__file__).parents[2]


def local_loader(root: Path, *servers: str, steps: int | None = 4, log: Path | None = None) -> ClipLoader:
    dataset = VideoWindows(read_manifest(root), window_s=1.0)
    is_local = "local" in servers
    options = LoaderOptions(
        servers=servers,
        root=root if is_local else None,
        local_log=log if is_local else None,
        batch_clips=3,
        steps=steps,
        run_seed=7,
        stall_s=60.0,
    )
    return ClipLoader(dataset, POLICY, options)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_its_bytes_are_those_of_a_server_that_was_started_by_hand(root: Path, tmp_path: Path) -> None:
    with local_loader(root, "local", log=tmp_path / "logs") as run:
        own = list(run)
        mine = servers_of(os.getpid())
    assert "serving" in (tmp_path / "logs" / "local-0.log").read_text()
    assert not any(map(alive, mine))
    with Server(tmp_path, str(root), *OPTIONS, program=SERVE) as server, local_loader(root, server.endpoint) as run:
        for mine_batch, batch in zip(own, run, strict=True):
            assert np.array_equal(mine_batch.pixels, batch.pixels)


@pytest.mark.slow
def test_it_is_started_again_when_it_dies_and_said(
    root: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    before = set(servers_of(os.getpid()))
    with local_loader(root, "local", steps=None, log=tmp_path) as run, caplog.at_level(logging.ERROR):
        next(run)
        (pid,) = set(servers_of(os.getpid())) - before
        os.kill(pid, signal.SIGKILL)
        wait_until("it is there again", lambda: set(servers_of(os.getpid())) - before - {pid})
        for _ in range(20):
            next(run)
        assert run.stats.conserved
    (line,) = [record.getMessage() for record in caplog.records if "started again" in record.getMessage()]
    assert f"the server of {root} on this machine was ended by SIGKILL" in line
    assert str(tmp_path / "local-0.log") in line


@contextlib.contextmanager
def trainer(root: Path, then: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.local_trainer", str(root), then],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        servers = [int(word) for word in process.stdout.readline().split()]
        assert servers
        yield process, [*servers, *(pid for server in servers for pid in children_of(server))]
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_trainer_that_is_ended_leaves_no_process(root: Path, number: int) -> None:
    with trainer(root, "stay") as (process, pids):
        assert len(pids) > 1, "the server has workers"
        process.send_signal(number)
        wait_until("all are gone", lambda: not any(map(alive, pids)))


@pytest.mark.slow
@pytest.mark.parametrize("then", ["drop", "end"])
def test_a_loader_that_nobody_closes_leaves_no_process(root: Path, then: str) -> None:
    with trainer(root, then) as (_, pids):
        wait_until("all are gone", lambda: not any(map(alive, pids)))


@pytest.mark.slow
def test_a_forked_child_that_closes_the_loader_ends_nothing(root: Path) -> None:
    with trainer(root, "fork") as (process, pids):
        assert process.stdout is not None
        assert process.stdout.readline() == "went on\n"
        assert all(map(alive, pids))


def options(**chosen: object) -> LoaderOptions:
    return LoaderOptions(**{"servers": "local", "batch_clips": 1, **chosen})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ({}, "servers is 'local' and root is None, wanted the folder of videos to serve"),
        (
            {"servers": ["tcp://a:1"], "root": Path("/videos")},
            "root is the path /videos and servers has no 'local' to use it; wanted 'local' among servers, or no root",
        ),
        ({"servers": ["tcp://a:1"], "local_cpus": 2}, "local_cpus is 2 and servers has no 'local'"),
        ({"root": "/videos"}, "root is '/videos', wanted a Path or None"),
        ({"root": Path("/videos"), "local_cpus": 0}, "local_cpus is 0, wanted at least 1"),
        ({"servers": ["local", "local"], "root": Path("/videos")}, "'local' is given twice"),
    ],
)
def test_options_that_make_no_server_are_refused(chosen: dict[str, object], wanted: str) -> None:
    with pytest.raises(BadInput, match=wanted):
        options(**chosen)


def test_local_may_stand_alone_or_among_others() -> None:
    root = Path("/videos")
    assert options(root=root).servers == ("local",)
    assert options(root=root, servers=["tcp://a:1", "local"]).servers == ("tcp://a:1", "local")


def test_a_root_that_is_not_indexed_is_one_line_that_says_what_to_run(tmp_path: Path) -> None:
    dataset = [Sample(video="a", start_s=0.0, end_s=1.0)]
    with pytest.raises(BadInput, match=rf"root {tmp_path} has no .*; run 'framefeed index {tmp_path}' first"):
        ClipLoader(dataset, POLICY, options(root=tmp_path))
