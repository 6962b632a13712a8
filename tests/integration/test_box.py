"""Two fronts in one box: twice as wide, and whatever happens to a part of it, nothing is lost or left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from decode_server.indexing.index import Index
from framefeed.wire import ClipReply, DecodeCall, DescribeCall, ServerReply
from tests.chaos.batch_log import line_of
from tests.chaos.box import fixed_bind
from tests.chaos.fleet import boxes, make_videos, plan
from tests.integration.box_of_fronts import TWO, BoxOfFronts, children
from tests.integration.serving import SERVE, Client, Gate, gone, request, wait_until
from tests.integration.test_serve import run_and_fail

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize("transport", ["tcp", "shm", "grpc"])
def test_two_fronts_give_the_bytes_of_one(root: Path, tmp_path: Path, transport: str) -> None:
    with BoxOfFronts(tmp_path, str(root), bind=fixed_bind(transport), program=SERVE) as box:
        with plan(root, tmp_path, box.urls, steps=40).open() as run:
            batches = [line_of(batch).identity for batch in run]
            assert all(run.stats.requests[url, "ok"] > 100 for url in box.urls)
        box.signal(signal.SIGTERM)
        assert box.wait() == 0
    with boxes(tmp_path, root, count=1) as one, plan(root, tmp_path, one, steps=40).open() as alone:
        assert [line_of(batch).identity for batch in alone] == batches


def test_each_front_has_its_own_cpus_workers_memory_and_place(tmp_path: Path) -> None:
    """And tells its clients where the other one is; the registry and the announcement name both."""
    registry = tmp_path / "registry"
    with BoxOfFronts(tmp_path, "/videos", "--registry", str(registry), "--buffer-pool-mib", "6") as box:
        assert len(set(box.urls)) == len({entry.metrics_url for entry in box.entries}) == 2
        wait_until("two entries", lambda: len(list(registry.glob("*.server.json"))) == 2)
        cpus = [os.sched_getaffinity(pid) for pid in box.pids]
        assert not cpus[0] & cpus[1]
        for pid, own, url, other in zip(box.pids, cpus, box.urls, box.urls[::-1], strict=True):
            assert children(pid)
            assert all(os.sched_getaffinity(child) <= own for child in children(pid))
            with Client(url) as client:
                client.send(DescribeCall(attempt=1))
                reply, _ = client.receive()
            assert isinstance(reply, ServerReply)
            assert reply.siblings == (f"tcp://*:{other.rpartition(':')[2]}",)
            assert reply.max_clip_bytes == 3 << 20
        box.signal(signal.SIGINT)
        assert box.wait() == 0
        assert not box.announced
        assert list(registry.iterdir()) == []


def test_sigterm_drains_both_and_ends_with_0(tmp_path: Path) -> None:
    gates = [Gate(tmp_path / name) for name in ("a", "b")]
    with BoxOfFronts(tmp_path, "/videos") as box, Client(box.urls[0]) as one, Client(box.urls[1]) as other:
        clients = one, other
        for client, gate in zip(clients, gates, strict=True):
            client.send(DecodeCall(attempt=1, deadline_s=20.0, request=request(gate.video)))
        wait_until("both decode", lambda: all(gate.entered() for gate in gates))
        box.signal(signal.SIGTERM)
        for client in clients:
            told, _ = client.receive()
            assert isinstance(told, ServerReply)
            assert told.state == "draining"
        for client, gate in zip(clients, gates, strict=True):
            gate.open()
            assert isinstance(client.receive()[0], ClipReply)
            gate.close()
        assert box.wait() == 0


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with BoxOfFronts(tmp_path, "/videos") as box, Client(box.urls[0]) as client:
        client.send(DecodeCall(attempt=1, deadline_s=20.0, request=request(gate.video)))
        wait_until("it decodes", gate.entered)
        pidfds = [os.pidfd_open(pid) for pid in box.everyone()]
        box.signal(signal.SIGTERM)
        assert isinstance(client.receive()[0], ServerReply)
        box.signal(signal.SIGTERM)
        assert box.wait() == 1
        assert all(gone(pidfd) for pidfd in pidfds)
        assert "front 0: stopped at once by a second signal, with 1 requests in flight" in box.log()


@pytest.mark.parametrize("transport", ["tcp", "shm"])
def test_a_front_that_is_killed_costs_its_clips_a_retry_and_nothing_else(
    root: Path, tmp_path: Path, transport: str
) -> None:
    with BoxOfFronts(tmp_path, str(root), bind=fixed_bind(transport), program=SERVE) as box:
        with plan(root, tmp_path, box.urls, steps=80, batch_clips=8).open() as run:
            seen = [line_of(next(run))]
            while not all(run.stats.requests.get((url, "ok"), 0) > 10 for url in box.urls):
                seen.append(line_of(next(run)))
            os.kill(box.pids[0], signal.SIGKILL)
            seen += [line_of(batch) for batch in run]
            assert run.stats.conserved
            assert run.stats.used == 80 * 8
        with plan(root, tmp_path, box.urls[1:], steps=80, batch_clips=8).open() as undisturbed:
            assert [line_of(batch).identity for batch in undisturbed] == [line.identity for line in seen]
        wait_until("it is announced anew", lambda: len(_pids(box)) == 2 and _pids(box)[0] != box.pids[0])
        assert _pids(box)[1] == box.pids[1]
        assert [entry.endpoints[0] for entry in box.now()] == box.urls
        box.signal(signal.SIGTERM)
        assert box.wait() == 0


def _pids(box: BoxOfFronts) -> list[int]:
    return [entry.pid for entry in box.now()]


def test_kill_9_of_the_box_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    with BoxOfFronts(tmp_path, "/videos") as box:
        everyone = box.everyone()
        assert len(everyone) == 1 + 2 * 3  # each front has a gateway and a worker
        pidfds = [os.pidfd_open(pid) for pid in everyone]
        box.signal(signal.SIGKILL)
        box.wait()
        assert all(gone(pidfd) for pidfd in pidfds)
    for url in box.urls:
        with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
            pass


def test_a_port_in_use_is_one_line_and_nothing_stays(tmp_path: Path) -> None:
    with BoxOfFronts(tmp_path, "/videos") as box:
        port = int(box.urls[0].rpartition(":")[2])
        code, line = run_and_fail("/videos", *TWO, "--bind", f"tcp://127.0.0.1:{port - 1}")
        assert code == 2
        assert line == f"framefeed: bind: tcp://127.0.0.1:{port} is in use; choose another with --bind"


def test_workers_that_refuse_end_the_box_in_one_line() -> None:
    free = ("--bind", "tcp://127.0.0.1:0")
    assert run_and_fail("/refuses", *TWO, *free) == (2, "framefeed: root refuses: wanted another")
    code, line = run_and_fail("/videos", *TWO[:1], "9", *TWO[2:], *free)
    assert code == 2
    assert line.startswith("framefeed: --fronts is 9, and there are ")


def test_a_front_whose_loop_stands_is_started_again_by_its_box(tmp_path: Path) -> None:
    with BoxOfFronts(tmp_path, "/videos", "--hang-s", "0") as box:
        os.kill(box.pids[0], signal.SIGSTOP)
        wait_until("it is announced anew", lambda: len(_pids(box)) == 2 and _pids(box)[0] != box.pids[0])
        assert "front 0 is killed: its loop has stood for 5." in box.log()
        assert _pids(box)[1] == box.pids[1]
        for url in box.urls:
            with Client(url) as client:
                assert isinstance(client.decode(request())[0], ClipReply)
        box.signal(signal.SIGTERM)
        assert box.wait() == 0


def test_the_manifest_is_in_memory_once_for_all_workers_of_a_box(root: Path, tmp_path: Path) -> None:
    """And for those of a front that was killed since, and anew for all when the root was indexed again."""
    with BoxOfFronts(tmp_path, str(root), program=SERVE) as box:
        (memory,) = manifests(box)
        os.kill(box.pids[0], signal.SIGKILL)
        wait_until("it is announced anew", lambda: len(_pids(box)) == 2 and _pids(box)[0] != box.pids[0])
        assert manifests(box) == {memory}
    copied = tmp_path / "root"
    shutil.copytree(root, copied)
    with BoxOfFronts(tmp_path, str(copied), program=SERVE) as box:
        (memory,) = manifests(box)
        (copied / "clip0.mp4").unlink()
        Index(root=copied, jobs=1).run()
        wait_until("both are started again", lambda: len(_pids(box)) == 2 and not set(_pids(box)) & set(box.pids))
        assert len(manifests(box)) == 1
        assert manifests(box) != {memory}


def manifests(box: BoxOfFronts) -> set[str]:
    """Inodes of the memory that workers have their manifest in."""
    lines = [line.split() for pid in box.everyone() for line in maps_of(pid)]
    return {line[4] for line in lines if "framefeed-manifest" in line[-2]}


def maps_of(pid: int) -> list[str]:
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if line.endswith("(deleted)")]
