"""A real file system that fails under real servers: stale, failing and hung reads, and a mount whose server died."""

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from decode_server.service.workers.read_depth import most_stuck_readers
from framefeed.request import ClipRequest
from framefeed.wire import ClipReply, ErrorReply
from tests.faulty_mount import HANG, FaultyMount, possible
from tests.integration.serving import SERVE, Client, Server, wait_until
from tests.integration.test_storage_faults import REQUEST, TRIES, root, undisturbed

__all__ = ["root", "undisturbed"]  # fixtures: the videos, and what a request gives when nothing fails

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not possible(), reason="needs root and /dev/fuse"),
]
THREADS = 2
ARGS = ("--workers", "1", "--threads", str(THREADS), "--buffer-pool-mib", "16", "--read-s", "0.5", "--hang-s", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mnt"
    made.mkdir()
    return made


@pytest.fixture
def mount(root: Path, folder: Path) -> Iterator[FaultyMount]:
    with FaultyMount(root, suffix=".mp4").at(folder) as mounted:
        yield mounted


@pytest.fixture
def server(mount: FaultyMount, folder: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, str(folder), *ARGS, program=SERVE) as ready:
        yield ready
        mount.let_go()  # else its workers cannot end


def ask(client: Client, wanted: ClipRequest = REQUEST) -> str | bytes:
    """The code of the error, or the clip's bytes."""
    reply, pixels = client.decode(wanted, deadline_s=60.0)
    assert isinstance(reply, ErrorReply | ClipReply)
    return reply.code if isinstance(reply, ErrorReply) else pixels


def test_reads_that_fail_for_a_moment_cost_a_retry(mount: FaultyMount, server: Server, undisturbed: bytes) -> None:
    mount.faults.extend([errno.ESTALE, errno.EIO])
    with Client(server.endpoint) as client:
        assert ask(client) == undisturbed
        values = server.metrics()
        assert values['framefeed_server_storage_faults_total{kind="stale"}'] == 1
        assert values['framefeed_server_storage_faults_total{kind="io"}'] == 1
        assert values["framefeed_server_storage_retries_total"] == 2
        mount.faults.extend([errno.EIO] * TRIES)
        assert ask(client) == "storage_fault"
        assert ask(client) == undisturbed


def test_hung_reads_cost_threads_then_workers_and_never_the_server(
    mount: FaultyMount, server: Server, undisturbed: bytes
) -> None:
    """A read that hangs here cannot be killed, so neither can its worker: the server counts such and bounds them."""
    with Client(server.endpoint) as client:
        (first,) = server.workers()
        mount.faults.append(HANG)
        assert ask(client) == "storage_fault"
        assert ask(client) == undisturbed, "the other threads go on"
        assert server.metrics()["framefeed_server_stuck_reads"] == 1
        for _ in range(most_stuck_readers(THREADS) - 1):
            mount.faults.append(HANG)
            assert ask(client) == "storage_fault"
        wait_until("it is replaced", lambda: server.metrics()["framefeed_server_worker_zombies"] == 1)
        wait_until("the next is up", lambda: server.get("/readyz")[0] == 200)
        assert first in server.workers(), "killed, and still there"
        assert ask(client) == undisturbed
        for _ in range(most_stuck_readers(THREADS)):
            mount.faults.append(HANG)
            assert ask(client) == "storage_fault"
        wait_until("there are two", lambda: server.metrics()["framefeed_server_worker_zombies"] == 2)
        assert server.get("/readyz")[0] == 503
        assert "2 killed workers cannot go" in server.get("/readyz")[1]
        assert ask(client) == "busy"
        assert "2 killed workers of one slot cannot go; none starts there" in server.log()
        time.sleep(1.5)  # longer than a worker that died for the second time is waited for
        assert len(server.workers()) == 2, "no third one starts only to hang as well"
        assert server.get("/healthz")[0] == 200

        mount.let_go()
        wait_until("they are gone", lambda: server.metrics()["framefeed_server_worker_zombies"] == 0)
        wait_until("it serves again", lambda: server.get("/readyz")[0] == 200)
        assert ask(client) == undisturbed
        wait_until("the buffer pool is whole", lambda: server.metrics()["framefeed_server_buffer_pool_used_bytes"] == 0)


@pytest.mark.parametrize("used", [False, True], ids=["unmounted", "dead"])
def test_a_mount_that_is_gone_is_not_bad_media(mount: FaultyMount, server: Server, folder: Path, used: bool) -> None:
    """With files open in it, it cannot be unmounted when what serves it dies: it stays, and fails."""
    with Client(server.endpoint) as client:
        if used:
            assert isinstance(ask(client), bytes)
        mount.die(folder)
        assert ask(client) == "storage_fault"
        assert server.metrics()['framefeed_server_storage_faults_total{kind="unmounted"}'] > 0
