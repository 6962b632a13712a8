"""A process that forks while its feed runs: neither disturbs the other, and no child holds what its parent let go."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framefeed.wire import ClipReply
from tests.integration.forking_trainer import STEPS
from tests.integration.serving import PATIENCE_S, Server, request, wait_until
from tests.integration.talker import Talker
from tests.integration.ways import start

# Asks for clips, reads none but the first header, and forks a child that lives until its pipe ends.
HOLDER = """
import os, sys
from tests.integration.serving import request
from tests.integration.talker import Talker
with Talker(sys.argv[1]) as talker:
    for attempt in range(60):
        talker.ask(request("pattern", side_px=224, frames=4, seed=attempt), attempt=attempt)
    while not talker.wire.header(talker.url):
        talker.wire.wait(1.0)
    child = os.fork()
    if not child:
        os.read(int(sys.argv[2]), 1)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()
print("closed", flush=True)
sys.stdin.read()
"""


SLOW = pytest.mark.slow
HOLD_S = 30.0  # serve's own --hold-s, unless told otherwise


@pytest.fixture(scope="module", params=["shm", pytest.param("tcp", marks=SLOW), pytest.param("grpc", marks=SLOW)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    transport = str(request.param)
    with start(tmp_path_factory.mktemp(transport), transport) as server:
        yield server


def used_bytes(server: Server) -> float:
    return server.metrics()["framefeed_server_buffer_pool_used_bytes"]


def train(server: Server, how: str) -> dict[str, Any]:
    """The report of a trainer that forks so."""
    command = [sys.executable, "-W", "error", "-m", "tests.integration.forking_trainer", how, server.endpoint]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def undisturbed(server: Server) -> list[str]:
    digests: list[str] = train(server, "none")["digests"]
    assert len(set(digests)) == STEPS
    return digests


@pytest.mark.parametrize("how", ["fork", "multiprocessing", "dataloader", "subprocess"])
def test_a_fork_changes_nothing_for_the_parent(server: Server, undisturbed: list[str], how: str) -> None:
    report = train(server, how)
    assert report["digests"] == undisturbed
    assert (report["right"], report["conserved"], report["retries"]) == (True, True, 0)
    if how == "subprocess":
        assert not any(kind in report["told"] for kind in ("socket", "event", "memfd")), report["told"]
    wait_until("the buffer pool is empty", lambda: used_bytes(server) == 0)


def test_a_child_is_refused_the_loader_has_nothing_of_it_and_ends_as_it_wants(server: Server) -> None:
    report = train(server, "fork")
    told = report["told"]
    *uses, pickling = told["said"]
    expected = (
        f"a ClipLoader made in process {report['pid']} is used in process {told['pid']}; make it in the process that "
        "iterates, as under DataLoader(num_workers=0): servers do the prefetching"
    )
    assert uses == [expected] * 5
    assert f"cannot leave process {report['pid']}" in pickling
    assert told["exit"] == 7
    libraries = () if server.endpoint.startswith("shm") else ("anon_inode:[event",)  # ZeroMQ's and gRPC's
    assert [name for name in told["open"] if not name.startswith(libraries)] == []


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_what_a_parent_held_comes_back_while_its_child_lives(server: Server, how: str) -> None:
    """At once, as a rule; the server cuts off who gives nothing back within `--hold-s`, so after that in any case."""
    its_end, our_end = os.pipe()
    command = [sys.executable, "-c", HOLDER, server.endpoint, str(its_end)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[its_end]
    ) as parent:
        os.close(its_end)
        assert parent.stdin is not None
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        child = os.pidfd_open(child_pid)
        try:
            wait_until("it holds something", lambda: used_bytes(server) > 0)
            if how == "killed":
                parent.send_signal(signal.SIGKILL)
                parent.wait(PATIENCE_S)
            else:
                parent.stdin.write("close\n")
                parent.stdin.flush()
                assert parent.stdout.readline() == "closed\n"
            begun_s = time.monotonic()
            wait_until("what it held is back", lambda: used_bytes(server) == 0, patience_s=HOLD_S + PATIENCE_S)
            if time.monotonic() > begun_s + PATIENCE_S:
                warnings.warn(f"it came back late; its child has {open_files(child_pid)}", stacklevel=1)
            assert not select.select([child], [], [], 0)[0], "the child lives on"
        finally:
            os.close(our_end)
            assert select.select([child], [], [], PATIENCE_S)[0], open_files(child_pid)
            os.close(child)
            parent.kill()


def open_files(pid: int) -> list[str]:
    return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_worker_has_no_descriptor_of_its_server_but_a_channel(server: Server) -> None:
    """One that is started while a client is connected, by every transport."""
    with Talker(server.endpoint) as talker:
        assert isinstance(talker.decode(request("pattern"))[0], ClipReply)
        before = server.workers()
        os.kill(before[0], signal.SIGKILL)
        wait_until("another worker", lambda: server.has_replaced(before))
        (worker,) = server.workers()
        links = [os.readlink(path) for path in Path(f"/proc/{worker}/fd").iterdir()]
        kinds = [link.partition(":")[0] for link in links if link.startswith(("socket:", "anon_inode:", "/memfd:"))]
        assert kinds == ["socket"], links  # its part of the buffers is mapped
        assert isinstance(talker.decode(request("pattern"))[0], ClipReply)
