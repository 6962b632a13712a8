"""Attacks on grpc://, shm:// and the HTTP port of a real server, with an honest run beside each: see adversary.py."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed import shm
from tests.fuzz.wires import (
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    h2_frame,
    h2_headers,
)
from tests.integration.adversary import CROWD, HonestRun, Peer, all_cut, crowd, withstands
from tests.integration.serving import PATIENCE_S, Server, wait_until
from tests.integration.ways import new_bind, way

pytestmark = pytest.mark.slow

HELLO = PREFACE + h2_frame(SETTINGS, 0, 0, b"")
FLOOD_BYTES, FLOOD_S = 32 << 20, 3.0
IDLE = 1000


def started(folder: Path, transport: str, *options: str, under: tuple[str, ...] = ()) -> Server:
    bind = ("--bind", new_bind(transport))
    return Server(folder, "/videos", "--workers", "1", "--buffer-pool-mib", "32", *bind, *options, under=under)


@pytest.fixture(scope="module")
def grpc_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, HonestRun]]:
    with started(tmp_path_factory.mktemp("server"), "grpc") as server, HonestRun(server.endpoint) as run:
        yield server, run


@pytest.fixture(scope="module")
def shm_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, HonestRun]]:
    with started(tmp_path_factory.mktemp("server"), "shm") as server, HonestRun(server.endpoint) as run:
        yield server, run


# grpc://


def _resets(first: int) -> bytes:
    """Many calls, each of which is reset at once: CVE-2023-44487."""
    streams = range(first, first + 2000, 2)
    return b"".join(
        h2_frame(HEADERS, END_HEADERS, stream, h2_headers()) + h2_frame(RST_STREAM, 0, stream, (8).to_bytes(4))
        for stream in streams
    )


def test_rapid_reset(grpc_served: tuple[Server, HonestRun]) -> None:
    server, run = grpc_served
    with withstands(server, run, "flood"):
        for _ in range(20):
            with Peer(server.endpoint) as peer, contextlib.suppress(OSError):
                peer.socket.sendall(HELLO)
                for first in range(1, 20_000, 2000):
                    peer.socket.sendall(_resets(first))


_PATH = b"/framefeed.v1.DecodeService/Decode"
_NO_UTF8 = (b"x-\xff", b"\xc3")


def test_a_method_whose_name_is_no_utf8(grpc_served: tuple[Server, HonestRun]) -> None:
    """In grpc.aio it ends the loop that takes calls: here it is refused, and the gateway stays. Names and values of
    metadata that are none say nothing in the log.
    """
    server, run = grpc_served
    gateways = server.metrics()["framefeed_server_gateway_restarts_total"]
    with withstands(server, run, "nonsense"), Peer(server.endpoint) as peer:
        peer.socket.sendall(HELLO)
        for stream in (1, 5, 9):
            for number, headers in enumerate((h2_headers(b"/framefeed.v1.\xe3/Decode"), h2_headers(_PATH, _NO_UTF8))):
                peer.socket.sendall(h2_frame(HEADERS, END_HEADERS, stream + 2 * number, headers))
            run.goes_on()
        assert peer.socket.recv(1 << 16)
    assert server.metrics()["framefeed_server_gateway_restarts_total"] == gateways
    assert "Traceback" not in server.log()


ENDLESS = {
    "settings": h2_frame(SETTINGS, 0, 0, b"\0\3\0\0\0\x64") * 4096,
    "pings": h2_frame(PING, 0, 0, b"12345678") * 4096,
    "empty data": h2_frame(HEADERS, END_HEADERS, 1, h2_headers()) + h2_frame(0, 0, 1, b"") * 4096,
}
HEADER_BLOCK = h2_frame(HEADERS, 0, 1, h2_headers()) + h2_frame(CONTINUATION, 0, 1, b"\x10\1x\1y" * 3000) * 64


@pytest.mark.parametrize("what", ENDLESS)
def test_frames_without_an_end(grpc_served: tuple[Server, HonestRun], what: str) -> None:
    """Acknowledgements that nobody reads, and frames that say nothing: CVE-2019-9512, -9515, -9518."""
    server, run = grpc_served
    with withstands(server, run, "process_cpu_seconds_total"), contextlib.ExitStack() as stack:
        for _ in range(4):
            peer = stack.enter_context(Peer(server.endpoint))
            with contextlib.suppress(OSError):
                peer.socket.sendall(HELLO)
                peer.flood(ENDLESS[what], FLOOD_BYTES, most_s=FLOOD_S)
        run.goes_on()


def test_a_header_block_without_an_end(grpc_served: tuple[Server, HonestRun]) -> None:
    """CVE-2024-27316: it is cut off."""
    server, run = grpc_served
    with withstands(server, run, "process_cpu_seconds_total"), Peer(server.endpoint) as peer:
        peer.socket.sendall(HELLO)
        assert peer.flood(HEADER_BLOCK, 1 << 30), "a GiB of headers was taken"


def test_56_header_blocks_without_an_end(grpc_served: tuple[Server, HonestRun]) -> None:
    """What gRPC's core reads of them, 1.5 GB, it frees late: the gateway that holds it is replaced by another."""
    server, run = grpc_served
    with withstands(server, run, "framefeed_server_gateway_restarts_total"):
        for _ in range(56):
            with contextlib.suppress(OSError), Peer(server.endpoint) as peer:
                peer.socket.sendall(HELLO)
                peer.flood(HEADER_BLOCK, 1 << 30, most_s=PATIENCE_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_grpc_gateway_that_dies_costs_the_run_nothing(
    grpc_served: tuple[Server, HonestRun], number: signal.Signals
) -> None:
    """Killed as by the system, and as gRPC's core does it when an assertion of it fails."""
    server, run = grpc_served
    died = f"it died by signal {number.value}"
    told = server.log().count(died)
    with withstands(server, run, "framefeed_server_gateway_restarts_total"):
        for times in (1, 2, 3):
            wait_until("a gateway", server.gateways)
            (gateway,) = server.gateways()
            os.kill(gateway, number)
            run.goes_on()
            wait_until("it is told", lambda times=times: server.log().count(died) == told + times)  # type: ignore[misc]


def test_a_grpc_gateway_that_is_stopped_is_not_the_server(grpc_served: tuple[Server, HonestRun]) -> None:
    server, run = grpc_served
    with withstands(server, run):
        (gateway,) = server.gateways()
        os.kill(gateway, signal.SIGSTOP)
        assert server.get("/healthz")[0] == 200
        os.kill(gateway, signal.SIGCONT)


def test_the_server_s_own_process_holds_no_grpc(grpc_served: tuple[Server, HonestRun]) -> None:
    def maps(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text()

    server, run = grpc_served
    run.goes_on()
    (gateway,) = server.gateways()
    assert "cygrpc" in maps(gateway)
    assert "cygrpc" not in maps(server.pid)
    assert "libzmq" not in maps(gateway)


@pytest.mark.parametrize("says", [b"", HELLO], ids=["silent", "greeted"])
def test_more_connections_than_descriptors(tmp_path: Path, says: bytes) -> None:
    """400 silent ones once ended a server that had 256 descriptors."""
    with (
        started(tmp_path, "grpc", under=("prlimit", "--nofile=256:256")) as server,
        HonestRun(server.endpoint) as run,
        withstands(server, run, "framefeed_server_worker_restarts_total"),
    ):
        peers = crowd(server.endpoint, 400, says)
        run.goes_on()
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until("another worker", lambda: server.has_replaced([worker]))
        run.goes_on()
        for peer in peers:
            peer.socket.close()


def test_2000_connections_without_a_certificate(tmp_path: Path) -> None:
    mutual = way("grpcs+mtls", tmp_path)
    with (
        started(tmp_path, "grpcs", *mutual.options) as server,
        HonestRun(server.endpoint, mutual.credentials) as run,
        withstands(server, run, "handshake"),
    ):
        peers = crowd(server.endpoint, CROWD, b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(64))
        run.goes_on()
        wait_until("all are cut off", lambda: all_cut(peers))


# shm://


class LocalPeer:
    """A raw connection to shm://; the greeting is left unread."""

    def __init__(self, url: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(shm.socket_address(url))  # which waits where as many stand in line as may
        self.socket.settimeout(PATIENCE_S)

    def send(self, datagram: bytes) -> bool:
        """Whether it could be sent."""
        try:
            self.socket.send(datagram)
        except OSError:
            return False
        return True

    def __enter__(self) -> LocalPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def test_local_connections_that_say_nothing(shm_served: tuple[Server, HonestRun]) -> None:
    server, run = shm_served
    connections = f'framefeed_server_clients{{address="{server.endpoint}"}}'
    with withstands(server, run), contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(LocalPeer(server.endpoint))
        wait_until("they are counted", lambda: server.metrics()[connections] > IDLE / 2)
        run.goes_on()
        with HonestRun(server.endpoint) as another:
            another.goes_on()


@pytest.mark.parametrize("length", [shm.MAX_DATAGRAM_BYTES, shm.MAX_DATAGRAM_BYTES + 1, 200_000])
def test_datagrams_of_the_largest_size(shm_served: tuple[Server, HonestRun], length: int) -> None:
    server, run = shm_served
    with withstands(server, run, "nonsense"):
        for _ in range(300):
            with LocalPeer(server.endpoint) as peer:
                for _ in range(20):
                    if not peer.send(b"C" + bytes(length - 1)):
                        break


def test_descriptors_that_nobody_asked_for(shm_served: tuple[Server, HonestRun]) -> None:
    """What comes with a datagram is not taken in: the server holds none of it."""
    server, run = shm_served
    with withstands(server, run, "nonsense", "framefeed_server_requests_received_total"):
        held = len(os.listdir(f"/proc/{server.pid}/fd"))
        for datagram in (b"C", b"X"):
            with open(os.devnull) as file:
                for _ in range(200):
                    with LocalPeer(server.endpoint) as peer, contextlib.suppress(OSError):
                        for _ in range(5):
                            socket.send_fds(peer.socket, [datagram], [file.fileno()] * 250)
        run.goes_on()
        wait_until("none is held", lambda: len(os.listdir(f"/proc/{server.pid}/fd")) < held + 50)


# The HTTP port.


SLOW = {
    "nothing": b"",
    "half a head": b"GET /metrics HTTP/1.1\r\nX: ",
    "a page that is not read": b"GET /metrics HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("says", SLOW)
def test_1000_idle_connections_to_the_http_port(grpc_served: tuple[Server, HonestRun], says: str) -> None:
    """`withstands` scrapes the page meanwhile."""
    server, run = grpc_served
    with withstands(server, run, "http"):
        peers = crowd(server.url, IDLE, SLOW[says])
        assert server.get("/readyz")[0] == 200
        run.goes_on()
        wait_until("all are cut off", lambda: all_cut(peers))


def test_a_head_that_comes_byte_by_byte(grpc_served: tuple[Server, HonestRun]) -> None:
    """Slowloris: each byte is in time, the request is not."""
    server, run = grpc_served
    with withstands(server, run, "http"):
        peers = crowd(server.url, 200, b"GET /metrics HTTP/1.1\r\n")

        def drip() -> bool:
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.socket.sendall(b"x")
            return all_cut(peers)

        wait_until("all are cut off", drip)


# Files.


@pytest.mark.parametrize("name", ["tcp+curve", "grpc+token", "grpcs+mtls"])
def test_key_files_that_become_pipes(tmp_path: Path, name: str) -> None:
    """A server goes on with what it had read, and drains when it is told to."""
    secured = way(name, tmp_path)
    files = [Path(option) for option in secured.options if option.startswith(str(tmp_path))]
    credentials = secured.credentials
    with started(tmp_path, secured.transport, *secured.options) as server:
        with HonestRun(server.endpoint, credentials) as run, withstands(server, run):
            for file in files:
                file.rename(file.with_name(f"{file.name}.was"))
                os.mkfifo(file, 0o600)
            crowd_of = crowd(server.endpoint, 20, b"x")
            run.goes_on()
            for peer in crowd_of:
                peer.socket.close()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log()
        assert "drained" in server.log()
