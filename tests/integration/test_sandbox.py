"""A decoder that was taken over gets nothing and costs one worker: shown as an ordinary user and as root."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from decode_server.service.listeners.curve import Keys
from framefeed.shm import MAX_DATAGRAM_BYTES, Lease, pack_call, socket_address, unpack_reply
from framefeed.wire import ClipReply, DecodeCall, ErrorReply
from framefeed.wire import pack_call as pack_decode_call
from tests.integration.hostile_worker import allowed, attacks, reaches
from tests.integration.serving import PATIENCE_S, Client, Server, request, wait_until

HOSTILE_SERVE = ("-m", "tests.integration.fake_server", "tests.integration.hostile_worker")
NOBODY = 65534
pytestmark = pytest.mark.slow
ATTACKS = [name for name in attacks(Path(), Path()) if name != "fill"] + list(reaches(memoryview(bytearray(1))))


@contextlib.contextmanager
def folder_of(name: str, *, ordinary: bool) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A folder with a root of one file beside a file that is not its business, and what starts a server for it."""
    if ordinary and (os.geteuid() != 0 or not shutil.which("setpriv")):
        pytest.skip("becoming another user needs root and setpriv")
    folder = Path("/tmp") / f"framefeed-sandbox-{os.getpid()}-{name}"
    root = folder / "root"
    root.mkdir(parents=True)
    (root / "clip").write_bytes(b"frames")
    (folder / "outside").write_bytes(b"a secret")
    (root / "link").symlink_to(folder / "outside")
    under: tuple[str, ...] = ()
    if ordinary:
        os.chmod(folder, 0o777)
        for path in (root, root / "clip"):
            os.chown(path, NOBODY, NOBODY)
        finds_python = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # in the home of root, say
        under = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *finds_python)
    try:
        yield folder, under
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["root", "ordinary user"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of hostile workers."""
    ordinary = request.param == "ordinary user"
    with (
        folder_of(request.param[:4], ordinary=ordinary) as (folder, under),
        Server(folder, str(folder / "root"), "--workers", "1", program=HOSTILE_SERVE, under=under) as server,
    ):
        yield server


def tried(server: Server, what: str) -> int:
    """The pixel that says how a try went."""
    with Client(server.endpoint) as client:
        reply, pixels = client.decode(request(what))
    assert isinstance(reply, ClipReply), reply
    assert len(set(pixels)) == 1
    return pixels[0]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_decoder_has_no_business_to_do_is_refused(server: Server, attack: str) -> None:
    assert tried(server, attack) == 1
    assert server.process.poll() is None


@pytest.mark.parametrize("need", list(allowed(Path())))
def test_what_decoding_needs_is_there(server: Server, need: str) -> None:
    assert tried(server, need) == 255


def test_a_decoder_that_takes_memory_without_end_gets_an_error(server: Server) -> None:
    """Its bound ends it, long before the machine has no memory left; the worker goes on or is replaced."""
    with Client(server.endpoint) as client:
        reply, _ = client.decode(request("fill"))
    assert isinstance(reply, ErrorReply)
    assert tried(server, "read_root") == 255


def test_the_log_says_what_is_in_force(server: Server) -> None:
    (line,) = [line for line in server.log().splitlines() if "sandbox of the" in line]
    workers, _, gateways = line.partition("sandbox of the workers: ")[2].partition("; gateways: ")
    for measures in (workers, gateways):
        for part in ("no_new_privs", "Landlock", "seccomp", "MiB of memory"):
            assert part in measures
    assert "not in force" not in line


def owner(pid: int) -> int:
    """Whose the memory of a process is: root's if others of its user may not look into it."""
    return os.stat(f"/proc/{pid}/mem").st_uid


def test_who_holds_secrets_cannot_be_looked_into_by_others_of_its_user() -> None:
    with folder_of("keys", ordinary=True) as (folder, under):
        for name in ("server", "trainer"):
            Keys(folder=folder, name=name).run()
        for path in folder.iterdir():
            os.chown(path, NOBODY, NOBODY)
        curve = ("--curve-key", str(folder / "server.secret"), "--curve-allow", str(folder / "trainer.public"))
        args = (str(folder / "root"), "--workers", "1")
        with Server(folder, *args, program=HOSTILE_SERVE, under=under) as server:
            assert [owner(pid) for pid in (server.pid, *server.gateways(), *server.workers())] == [NOBODY] * 3
            assert "dumpable" not in server.log()
        with Server(folder, *args, *curve, program=HOSTILE_SERVE, under=under) as server:
            wait_until("the gateway is up", lambda: "sandbox of the front: not dumpable; workers:" in server.log())
            assert [owner(pid) for pid in (server.pid, *server.gateways())] == [0, 0]
            assert [owner(pid) for pid in server.workers()] == [NOBODY], "they hold no secret"


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("lie", "it answered job 1 with a reply to another"),
        ("flood", "it tells again and again of reads of jobs that it does not have"),
    ],
)
def test_a_worker_that_lies_to_its_front_costs_itself(tmp_path: Path, what: str, why: str) -> None:
    (tmp_path / "root").mkdir()
    args = (str(tmp_path / "root"), "--workers", "1", "--threads", "1")
    with Server(tmp_path, *args, program=HOSTILE_SERVE) as server:
        with Client(server.endpoint) as client:
            reply, _ = client.decode(request(what))
        assert isinstance(reply, ErrorReply)
        assert (reply.attempt, reply.code) == (1, "server_lost")
        wait_until("the log says why", lambda: why in server.log())
        wait_until("the next worker is up", lambda: server.get("/readyz")[0] == 200)
        assert tried(server, "who") == 1, "the next worker has its place"
        assert server.process.poll() is None


class ShmClient:
    """Keeps what it is lent, and looks at it again and again."""

    def __init__(self, url: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(socket_address(url))
        _, (fd,), _, _ = socket.recv_fds(self._socket, 100, 1)
        self._pool = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        os.close(fd)
        self._calls = itertools.count(1)

    def ask(self, what: str) -> Lease | None:
        call = DecodeCall(attempt=next(self._calls), deadline_s=PATIENCE_S, request=request(what, side_px=64))
        self._socket.send(pack_call(pack_decode_call(call)))
        _, lease = unpack_reply(self._socket.recv(MAX_DATAGRAM_BYTES))
        return lease

    def pixels(self, lease: Lease) -> set[int]:
        return set(self._pool[lease.offset : lease.offset + lease.length_bytes])

    def close(self) -> None:
        self._socket.close()


def test_a_worker_reaches_its_own_part_of_the_buffer_pool_and_no_other() -> None:
    """Two workers; clips of both are lent to a client that reads them late, while one writes over all that it can."""
    with folder_of("part", ordinary=True) as (folder, under):
        url = f"shm://@framefeed-parts-{os.getpid()}"
        args = (str(folder / "root"), "--workers", "2", "--threads", "1", "--bind", "tcp://127.0.0.1:0", "--bind", url)
        with Server(folder, *args, program=HOSTILE_SERVE, under=under) as server:
            wait_until("both workers are up", lambda: server.log().count("is up on CPUs") == 2)
            parts = [parts_of(pid) for pid in server.workers()]
            assert [len(some) for some in parts] == [1, 1], "a worker has mapped more than its part"
            assert parts[0][0][1] <= parts[1][0][0] or parts[1][0][1] <= parts[0][0][0]
            client = ShmClient(url)
            lent: dict[int, list[Lease]] = {}
            while len(lent) < 2:  # idle workers take turns
                lease = client.ask("who")
                assert lease is not None
                lent.setdefault(client.pixels(lease).pop(), []).append(lease)
            client.ask("scribble")  # which may end the one that does it
            changed = {number for number, some in lent.items() for lease in some if client.pixels(lease) != {number}}
            assert len(changed) == 1, "it wrote over none, or another's"
            client.close()
            assert server.process.poll() is None


def parts_of(pid: int) -> list[tuple[int, int]]:
    """Where the ranges of the buffer pool begin and end that a process has mapped; it has no descriptor of it."""
    held = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    assert not [name for name in held if "framefeed-buffers" in name or "framefeed-cancel" in name]
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        where, _, offset, _, _, *name = line.split()
        if "framefeed-buffers" in "".join(name):
            start, end = (int(address, 16) for address in where.split("-"))
            ranges.append((int(offset, 16), int(offset, 16) + end - start))
    return ranges
