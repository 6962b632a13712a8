"""What only shm:// can do wrong: a listener over a real buffer pool, and clients that speak to its socket by hand."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from decode_server.service.buffer_pool import LEASE_WORDS, BufferPool
from decode_server.service.listeners.endpoint import parse_bind
from decode_server.service.listeners.listener import ReaderFull, ReaderGone
from decode_server.service.listeners.shm_listener import ShmListener
from decode_server.service.refusals import Refusals
from framefeed.errors import BadInput
from framefeed.shm import (
    HELLO,
    MAX_DATAGRAM_BYTES,
    LeaseWord,
    pack_back,
    pack_call,
    pack_hello,
    socket_address,
    unpack_hello,
    unpack_reply,
)
from tests.integration.serving import PATIENCE_S, wait_until
from trainer_client.transports.shm_transport import ShmTransport
from trainer_client.transports.transport import Kind, Signal, TransportLimits

MIB = 1 << 20
SOME_WORD = pack_hello(LeaseWord(0, 0))


@pytest.fixture
def buffer_pool() -> Iterator[BufferPool]:
    buffer_pool = BufferPool(MIB)
    buffer_pool.view(_buffer(buffer_pool, MIB), MIB)[:] = np.resize(np.arange(251, dtype=np.uint8), MIB).tobytes()
    yield buffer_pool
    buffer_pool.close()


def _buffer(buffer_pool: BufferPool, length_bytes: int):  # type: ignore[no-untyped-def]
    buffer = buffer_pool.ranges.allocate(length_bytes)
    assert buffer is not None
    buffer_pool.ranges.free(buffer)
    return buffer


@pytest.fixture
def listener(buffer_pool: BufferPool, tmp_path: Path) -> Iterator[ShmListener]:
    listener = listen(buffer_pool, f"shm://{tmp_path}/socket")
    yield listener
    listener.close(linger_s=0)


def listen(buffer_pool: BufferPool, url: str) -> ShmListener:
    return ShmListener(parse_bind(url, public_allowed=False), buffer_pool, refusals=Refusals(CollectorRegistry()))


class Hand:
    """A client by hand. `greeting` takes the buffer pool."""

    def __init__(self, listener: ShmListener) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(socket_address(listener.url))
        assert listener.receive() is None
        hello, fds, _, _ = socket.recv_fds(self.socket, 100, 1)
        self.word = unpack_hello(hello)
        (self.buffer_pool_fd,) = fds

    def name(self, listener: ShmListener) -> bytes:
        """What the listener calls it, learned by a call."""
        self.socket.send(pack_call(b"who"))
        message = listener.receive()
        assert message is not None
        assert message[1] == [b"who"]
        return message[0]

    def close(self) -> None:
        self.socket.close()
        os.close(self.buffer_pool_fd)


@pytest.fixture
def hand(listener: ShmListener) -> Iterator[Hand]:
    hand = Hand(listener)
    yield hand
    hand.close()


def test_the_buffer_pool_can_be_read_and_not_written(buffer_pool: BufferPool, hand: Hand) -> None:
    assert fcntl.fcntl(hand.buffer_pool_fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    with pytest.raises(PermissionError):
        mmap.mmap(hand.buffer_pool_fd, 0)
    with mmap.mmap(hand.buffer_pool_fd, 0, prot=mmap.PROT_READ) as seen:
        assert seen[hand.word.offset :][:8] == hand.word.number.to_bytes(8, sys.byteorder)
        assert seen[:300] == bytes(buffer_pool.view(_buffer(buffer_pool, 300), 300))


def test_a_lease_is_done_when_it_is_given_back_and_not_before(
    buffer_pool: BufferPool, listener: ShmListener, hand: Hand
) -> None:
    name = hand.name(listener)
    first = buffer_pool.ranges.allocate(5000)
    second = buffer_pool.ranges.allocate(5000)
    assert first is not None
    assert second is not None
    leased = [listener.send(name, b"h", buffer_pool.view(buffer, 5000)) for buffer in (first, second)]
    leases = [unpack_reply(hand.socket.recv(MAX_DATAGRAM_BYTES))[1] for _ in leased]
    assert [(lease.offset, lease.length_bytes) for lease in leases if lease] == [(0, 5000), (second.offset, 5000)]
    assert listener.receive() is None
    assert [one.done for one in leased if one] == [False, False]
    hand.socket.send(pack_back([leases[1].number]))  # type: ignore[union-attr]
    assert listener.receive() is None
    assert [one.done for one in leased if one] == [False, True]


@pytest.mark.parametrize(
    "datagram", [pack_back([7]), pack_back([1, 1]), b"\0nonsense", b"C" + bytes(70_000), b"B123"], ids=lambda d: d[:4]
)
def test_who_says_nonsense_is_cut_off_and_its_leases_are_free(
    buffer_pool: BufferPool, listener: ShmListener, hand: Hand, datagram: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    other = Hand(listener)
    name, other_name = hand.name(listener), other.name(listener)
    leased = [listener.send(who, b"h", buffer_pool.view(_buffer(buffer_pool, 100), 100)) for who in (name, other_name)]
    hand.socket.send(datagram)
    assert listener.receive() is None
    assert [one.done for one in leased if one] == [True, False]
    assert "(nonsense): cut off" in caplog.text
    with pytest.raises(ReaderGone):
        listener.send(name, b"h", None)
    assert listener.send(other_name, b"h", None) is None
    other.close()


def test_who_does_not_read_headers_is_full_and_not_lost(listener: ShmListener, hand: Hand) -> None:
    name = hand.name(listener)
    sent = 0

    def send_on() -> None:
        nonlocal sent
        while sent < 100_000:
            listener.send(name, bytes(1000), None)
            sent += 1

    with pytest.raises(ReaderFull):
        send_on()
    for _ in range(sent):
        assert unpack_reply(hand.socket.recv(MAX_DATAGRAM_BYTES)) == (bytes(1000), None)
    assert listener.send(name, b"h", None) is None


def test_descriptors_that_a_client_sends_are_not_taken(listener: ShmListener, hand: Hand) -> None:
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(hand.socket, [pack_call(b"x")], [hand.buffer_pool_fd] * 50)
    message = listener.receive()
    assert message is not None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_client_of_another_user_is_refused(
    listener: ShmListener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("decode_server.service.listeners.shm_listener.is_trusted", lambda peer: False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.settimeout(PATIENCE_S)
        stranger.connect(socket_address(listener.url))
        assert listener.receive() is None
        assert stranger.recv(100) == b""
    assert "refused a client at shm://" in caplog.text
    assert "(user): it runs as another user" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_kernel_says_who_a_client_is(buffer_pool: BufferPool) -> None:
    code = """
import os, socket, sys
os.setuid(65534)
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.settimeout(20)
s.connect(sys.argv[1].replace("@", chr(0)))
print(s.recv(100))
"""
    listener = listen(buffer_pool, f"shm://@t{os.getpid()}")
    address = socket_address(listener.url).replace("\0", "@")
    child = subprocess.Popen([sys.executable, "-c", code, address], stdout=subprocess.PIPE, text=True)
    wait_until("it is refused", lambda: listener.receive() is None and child.poll() is not None)
    assert child.communicate()[0] == "b''\n"
    listener.close(linger_s=0)


def test_a_socket_file_of_a_killed_server_is_replaced_and_a_living_one_s_is_not(
    buffer_pool: BufferPool, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(str(path))
    left.close()
    assert path.is_socket()
    first = listen(buffer_pool, f"shm://{path}")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadInput, match=f"bind: shm://{path} is in use; choose another"):
        listen(buffer_pool, f"shm://{path}")
    hand = Hand(first)
    hand.close()
    first.close(linger_s=0)
    first.close(linger_s=0)
    assert not path.exists()


def test_no_file_but_a_socket_is_replaced(buffer_pool: BufferPool, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(BadInput, match="in use"):
        listen(buffer_pool, f"shm://{path}")
    assert path.read_text() == "data"
    with pytest.raises(BadInput, match="No such file"):
        listen(buffer_pool, f"shm://{tmp_path}/nowhere/socket")


class Impostor:
    """A server by hand: greets with what it is told to."""

    def __init__(self, path: Path) -> None:
        self.url = f"shm://{path}"
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(str(path))
        self._listening.listen()
        self.peers: list[socket.socket] = []

    def greet(self, hello: bytes, fds: list[int]) -> None:
        peer, _ = self._listening.accept()
        self.peers.append(peer)
        socket.send_fds(peer, [hello], fds)

    def close(self) -> None:
        for one in (*self.peers, self._listening):
            one.close()


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Impostor]:
    impostor = Impostor(tmp_path / "impostor")
    yield impostor
    impostor.close()


@pytest.fixture
def transport() -> Iterator[ShmTransport]:
    transport = ShmTransport(TransportLimits(clip_bytes=MIB))
    yield transport
    transport.close()


def await_kinds(transport: ShmTransport, url: str, kind: Kind) -> None:
    wait_until(f"{kind}", lambda: Signal(url, kind) in transport.signals())


def test_a_greeting_without_a_sealed_buffer_pool_is_not_believed(transport: ShmTransport, impostor: Impostor) -> None:
    """A buffer pool that could shrink would kill the trainer by SIGBUS."""
    unsealed = os.memfd_create("unsealed")
    os.ftruncate(unsealed, 4096)
    transport.connect(impostor.url)
    greetings: list[tuple[bytes, list[int]]] = [
        (SOME_WORD, []),
        (HELLO, []),
        (b"another" + SOME_WORD, []),
        (SOME_WORD, [unsealed]),
    ]
    for hello, fds in greetings:
        greeting = threading.Thread(target=impostor.greet, args=(hello, fds))
        greeting.start()
        wait_until("it is greeted", lambda g=greeting: transport.signals() == [] and not g.is_alive())
        wait_until("it hangs up", lambda: transport.signals() == [] and _hung_up(impostor.peers[-1]))
        assert not transport.send(impostor.url, b"call")
    os.close(unsealed)


def _hung_up(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return peer.recv(100) == b""
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno == errno.ECONNRESET


@pytest.mark.parametrize("offset", [LEASE_WORDS * 8 + 4096, 1 << 63])
def test_a_lease_outside_the_buffer_pool_ends_the_connection(
    transport: ShmTransport, impostor: Impostor, buffer_pool: BufferPool, offset: int
) -> None:
    transport.connect(impostor.url)
    assert transport.signals() == []
    impostor.greet(SOME_WORD, [buffer_pool.fd])
    await_kinds(transport, impostor.url, Kind.CONNECTED)
    impostor.peers[0].send(np.array([1, offset, MIB], np.uint64).tobytes() + b"header")
    await_kinds(transport, impostor.url, Kind.MESSAGES)
    assert transport.header(impostor.url) is None
    await_kinds(transport, impostor.url, Kind.LOST)


def _connected_client(transport: ShmTransport, listener: ShmListener) -> bytes:
    """Connect and call; the client's id at the listener."""
    transport.connect(listener.url)
    assert transport.signals() == []
    return _client_that_called(transport, listener)


def _client_that_called(transport: ShmTransport, listener: ShmListener) -> bytes:
    """Be greeted and send one call; the client's id at the listener."""
    assert listener.receive() is None
    await_kinds(transport, listener.url, Kind.CONNECTED)
    assert transport.send(listener.url, b"call")
    message = listener.receive()
    assert message is not None
    return message[0]


def test_pixels_go_into_an_array_of_their_length_only(
    transport: ShmTransport, listener: ShmListener, buffer_pool: BufferPool
) -> None:
    client = _connected_client(transport, listener)
    for rows in (3, 4, 5):
        leased = listener.send(client, b"h", buffer_pool.view(_buffer(buffer_pool, 4000), 4000))
        into = np.zeros((rows, 10, 100), np.uint8)
        await_kinds(transport, listener.url, Kind.MESSAGES)
        assert transport.header(listener.url) == b"h"
        assert transport.pixels(listener.url, into) == 4000
        assert transport.pixels(listener.url, into) == 0
        assert np.array_equal(into.reshape(-1), np.arange(4000) % 251) == (rows == 4)
        transport.signals()
        assert listener.receive() is None
        assert leased is not None
        assert leased.done


def test_a_header_whose_pixels_nobody_takes_gives_them_back(
    transport: ShmTransport, listener: ShmListener, buffer_pool: BufferPool
) -> None:
    client = _connected_client(transport, listener)
    leased = [listener.send(client, b"h", buffer_pool.view(_buffer(buffer_pool, 4000), 4000)) for _ in range(3)]
    while transport.header(listener.url) is not None:
        pass
    transport.signals()
    assert listener.receive() is None
    assert all(one.done for one in leased if one)


def test_what_a_server_said_before_it_ended_is_read_before_it_is_lost(
    transport: ShmTransport, listener: ShmListener, buffer_pool: BufferPool
) -> None:
    """With a call unread the kernel resets the connection, and the buffer pool is gone with the server."""
    client = _connected_client(transport, listener)
    for _ in range(3):
        listener.send(client, b"last", buffer_pool.view(_buffer(buffer_pool, 4000), 4000))
    transport.send(listener.url, b"unread")
    listener.close(linger_s=0)
    buffer_pool.close()
    into = np.zeros(4000, np.uint8)
    for _ in range(3):
        await_kinds(transport, listener.url, Kind.MESSAGES)
        assert transport.header(listener.url) == b"last"
        assert transport.pixels(listener.url, into) == 4000
        assert np.array_equal(into, np.arange(4000) % 251)
    await_kinds(transport, listener.url, Kind.LOST)


STOPPED_IN_THE_COPY = """
import sys, numpy as np
from trainer_client.transports.shm_transport import ShmTransport
from trainer_client.transports.transport import Kind, Signal, TransportLimits
url, length = sys.argv[1], int(sys.argv[2])
transport = ShmTransport(TransportLimits(clip_bytes=length))
transport.connect(url)
while Signal(url, Kind.CONNECTED) not in transport.signals():
    pass
transport.send(url, b"call")
while transport.header(url) is None:
    pass
into = np.empty(length, np.uint8)
print("copies", flush=True)
copied = transport.pixels(url, into)
print(copied, np.unique(into).tolist() if copied else [], Signal(url, Kind.LOST) in transport.signals(), flush=True)
"""


@pytest.mark.parametrize("revoked", [True, False], ids=["revoked", "only stopped"])
def test_a_client_stopped_while_it_copies_never_takes_a_buffer_that_was_used_again(
    tmp_path: Path, revoked: bool
) -> None:
    """It is stopped somewhere in the copy of 48 MiB; meanwhile its lease ends and the buffer is another's."""
    length = 48 * MIB
    buffer_pool = BufferPool(length)
    listener = listen(buffer_pool, f"shm://{tmp_path}/socket")
    pixels = buffer_pool.view(_buffer(buffer_pool, length), length)
    np.frombuffer(pixels, np.uint8)[:] = 1
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED_IN_THE_COPY, listener.url, str(length)], stdout=subprocess.PIPE, text=True
    )
    asked: list[bytes] = []

    def has_asked() -> bool:
        asked.extend(message[0] for message in [listener.receive()] if message)
        return bool(asked)

    wait_until("it asks", has_asked)
    lease = listener.send(asked[0], b"h", pixels)
    assert child.stdout is not None
    assert child.stdout.readline() == "copies\n"
    child.send_signal(signal.SIGSTOP)
    wait_until("it is stopped", lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0] == "T")
    assert lease is not None
    if revoked:
        listener.cut(asked[0])
        assert lease.done
        np.frombuffer(pixels, np.uint8)[:] = 2
    child.send_signal(signal.SIGCONT)
    said, _ = child.communicate(timeout=PATIENCE_S)
    finished_before_it_was_stopped = said == f"{length} [1] True\n"
    assert said == ("0 [] True\n" if revoked else f"{length} [1] False\n") or (
        revoked and finished_before_it_was_stopped
    )
    pixels.release()
    listener.close(linger_s=0)
    buffer_pool.close()


def test_without_descriptors_who_connects_is_refused_by_name_and_not_looked_at_again(
    buffer_pool: BufferPool, listener: ShmListener, hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    name = hand.name(listener)
    strangers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
    for stranger in strangers:
        stranger.settimeout(PATIENCE_S)
        stranger.connect(socket_address(listener.url))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        assert listener.receive() is None
        assert not select.select([listener.fileno()], [], [], 0)[0], "it would be called again and again"
        assert [stranger.recv(100) for stranger in strangers] == [b""] * 3
        assert listener.send(name, b"h", None) is None, "who is connected is served"
    finally:
        for fd in fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for stranger in strangers:
            stranger.close()
    assert caplog.text.count("(descriptors): this process has no descriptor left") == 3
    late = Hand(listener)
    late.close()


def test_an_address_too_long_for_a_socket_is_one_line(transport: ShmTransport) -> None:
    with pytest.raises(BadInput, match="longer than a socket's may be"):
        transport.connect("shm:///" + "x" * 108)


@contextlib.contextmanager
def copied(sockets: set[str]) -> Iterator[None]:
    """Within it there is a second descriptor of each: what a process that was forked by no means of Python's holds."""
    copies = [os.dup(int(fd)) for fd in sockets]
    yield
    for fd in copies:
        os.close(fd)


def open_sockets() -> set[str]:
    links = {path.name: os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    return {fd for fd, what in links.items() if what.startswith("socket:")}


def test_a_server_that_is_let_go_is_told_and_not_heard_of_while_a_fork_lives(
    transport: ShmTransport, listener: ShmListener, buffer_pool: BufferPool
) -> None:
    """An epoll reports what was closed and not taken out of it for as long as any process has it open."""
    before = open_sockets()
    transport.connect(listener.url)
    assert transport.signals() == []
    with copied(open_sockets() - before):
        client = _client_that_called(transport, listener)
        leased = listener.send(client, b"h", buffer_pool.view(_buffer(buffer_pool, 100), 100))
        assert leased is not None
        transport.disconnect(listener.url)
        assert transport.signals() == []
        wait_until("the server sees the end", lambda: listener.receive() is None and leased.done)


def test_a_client_that_goes_is_gone_while_a_fork_of_the_server_lives(listener: ShmListener) -> None:
    """As between fork and exec of a worker that is started meanwhile."""
    before = open_sockets()
    hand, other = Hand(listener), Hand(listener)
    with copied(open_sockets() - before):
        hand.socket.shutdown(socket.SHUT_RDWR)
        hand.close()
        for _ in range(3):
            assert listener.receive() is None
        assert other.name(listener)
        other.socket.shutdown(socket.SHUT_RDWR)
    other.close()
