"""What a raw peer can do to libzmq costs one process that is replaced, or less; an honest run beside it sees nothing.

After each attack: every clip of the run was right and in its place, the server is the same process, what all of its
processes hold grew by at most 64 MiB, and a counter names the attack.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from decode_server.service.listeners.curve import Keys
from decode_server.service.process_metrics import own_memory_bytes
from tests.chaos.zmtp import greeting, part, ready
from tests.integration.forking_trainer import POLICY, is_right
from tests.integration.serving import PATIENCE_S, Server, wait_until
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.transports.credentials import Credentials

pytestmark = pytest.mark.slow

BATCH_CLIPS = 4
DATASET = [Sample(video="pattern", start_s=i, end_s=i + 1) for i in range(96)]
MAY_GROW_BYTES = 64 << 20
CROWD = 2000
UNSEEDED = 0x6B8B4567  # where ZeroMQ's names begin if nobody seeds the C library's rand


class HonestRun:
    """A trainer in a thread of its own; within `with` it goes on, after it every batch of it was right."""

    def __init__(self, url: str, credentials: Credentials | None = None) -> None:
        options = LoaderOptions(
            servers=[url],
            batch_clips=BATCH_CLIPS,
            run_seed=7,
            stall_s=PATIENCE_S,
            credentials=credentials or Credentials(),
        )
        self._loader = ClipLoader(DATASET, POLICY, options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="honest run")
        self._failed: BaseException | None = None
        self.batches = 0

    def _run(self) -> None:
        try:
            with self._loader as run:
                while not self._stop.is_set():
                    batch = next(run)
                    first = self.batches * BATCH_CLIPS
                    assert batch.positions.tolist() == list(range(first, first + BATCH_CLIPS))
                    assert is_right(batch)
                    self.batches += 1
        except BaseException as error:
            self._failed = error

    def goes_on(self) -> None:
        """It has some more batches than now."""
        wanted = self.batches + 8
        wait_until("the honest run goes on", lambda: self._failed or self.batches >= wanted)
        assert self._failed is None, repr(self._failed)

    def __enter__(self) -> HonestRun:
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if kind is None:
            assert self._failed is None, repr(self._failed)


def held_bytes(server: Server) -> int:
    return sum(own_memory_bytes(pid) for pid in (server.pid, *server.workers(), *server.gateways()))


def restarts(server: Server) -> float:
    return server.metrics()["framefeed_server_gateway_restarts_total"]


def refused(server: Server, reason: str) -> float:
    return server.metrics()[f'framefeed_server_refused_total{{reason="{reason}"}}']


@contextlib.contextmanager
def withstands(server: Server, run: HonestRun, *reasons: str) -> Iterator[None]:
    """What is done within it to the server changes nothing for the run, and is counted under these reasons."""
    run.goes_on()
    before, held = {reason: refused(server, reason) for reason in reasons}, held_bytes(server)
    yield
    run.goes_on()
    for reason in reasons:
        wait_until(f"it is counted as {reason}", lambda: refused(server, reason) > before[reason])  # noqa: B023
    wait_until("its memory is given back", lambda: held_bytes(server) <= held + MAY_GROW_BYTES)
    assert server.process.poll() is None
    assert server.get("/healthz")[0] == 200


class Peer:
    """A raw connection that says what it likes."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)

    def shake_hands(self, identity: bytes = b"") -> Peer:
        self.socket.sendall(greeting() + ready(identity))
        received = b""
        while b"READY" not in received:
            more = self.socket.recv(4096)
            assert more, "the handshake failed"
            received += more
        return self

    def is_cut(self) -> bool:
        """Whether the other side ended the connection; what it still sends is thrown away."""
        before_s = self.socket.gettimeout()
        self.socket.setblocking(False)
        try:
            while self.socket.recv(1 << 16):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(before_s)
        return True

    def flood(self, data: bytes, most_bytes: int) -> bool:
        """Send it again and again; whether it was cut before so many bytes were sent."""
        self.socket.settimeout(0.2)
        sent = 0
        while sent < most_bytes:
            try:
                sent += self.socket.send(memoryview(data)[sent % len(data) :])
            except TimeoutError:
                if self.is_cut():
                    return True
            except OSError:
                return True
        return False

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all attacks: it is the same to the end."""
    with Server(tmp_path_factory.mktemp("server"), "/videos", "--workers", "1") as one:
        yield one


@pytest.fixture(scope="module")
def run(server: Server) -> Iterator[HonestRun]:
    with HonestRun(server.endpoint) as one:
        yield one


def test_a_name_that_zeromq_might_give_next_ends_nothing(server: Server, run: HonestRun) -> None:
    """libzmq aborts when it gives a client a name that another has taken; nobody knows which it will give."""
    gateways = server.gateways()
    with withstands(server, run, "identity"), contextlib.ExitStack() as stack:
        for number in range(UNSEEDED, UNSEEDED + 64):
            taken = stack.enter_context(Peer(server.endpoint)).shake_hands(b"\0" + number.to_bytes(4))
            taken.socket.sendall(part(b"x", more=False))
            wait_until("it is cut off", taken.is_cut)
        for _ in range(64):
            stack.enter_context(Peer(server.endpoint)).shake_hands()
    assert server.gateways() == gateways


def test_a_name_cannot_be_taken_from_who_has_it(server: Server, run: HonestRun) -> None:
    gateways = server.gateways()
    with (
        withstands(server, run, "identity"),
        Peer(server.endpoint) as first,
        Peer(server.endpoint) as second,
    ):
        first.shake_hands(b"trainer")
        second.shake_hands(b"trainer")
        for peer in (first, second):
            peer.socket.sendall(part(b"x", more=False))
        wait_until("who has it is cut off for it", first.is_cut)
    assert server.gateways() == gateways


OLD_GREETINGS = {  # signature, version, type DEALER, and an identity of no length; 1.0 has none of it
    "ZMTP 1.0": b"\x01\x00",
    "ZMTP 2.0": b"\xff" + bytes(8) + b"\x7f\x01\x05" + b"\x00\x00",
}


@pytest.mark.parametrize("version", OLD_GREETINGS)
def test_a_peer_of_an_older_zmtp_is_not_heard(server: Server, run: HonestRun, version: str) -> None:
    """libzmq tells nothing of where its messages come from."""
    gateways = server.gateways()
    with withstands(server, run, "handshake"), Peer(server.endpoint) as peer:
        peer.socket.sendall(OLD_GREETINGS[version])
        for _ in range(3):
            peer.socket.sendall(b"\x02\x00x" if version == "ZMTP 1.0" else b"\x00\x01x")
    assert server.gateways() == gateways


ENDLESS = {"empty parts": part(b"", more=True) * 4096, "large parts": part(bytes(1 << 16), more=True)}


@pytest.mark.parametrize("parts", ENDLESS)
def test_a_message_without_an_end_is_cut_off(server: Server, run: HonestRun, parts: str) -> None:
    with withstands(server, run, "flood"), Peer(server.endpoint) as peer:
        assert peer.shake_hands().flood(ENDLESS[parts], 1 << 30), "a GiB was taken"


def test_8_mb_of_empty_parts_are_thrown_away(server: Server, run: HonestRun) -> None:
    with withstands(server, run, "flood"), Peer(server.endpoint) as peer:
        peer.shake_hands()
        peer.flood(part(b"", more=True) * (4 << 20) + part(b"", more=False), (8 << 20) + 2)
        wait_until("it is cut off", peer.is_cut)


def test_many_messages_of_many_parts(server: Server, run: HonestRun) -> None:
    """Each is whole within a moment, and none is worth a line of its own."""
    message = part(b"", more=True) * 5000 + part(b"", more=False)
    with withstands(server, run, "flood"):
        for _ in range(50):
            with Peer(server.endpoint) as peer:
                peer.shake_hands()
                with contextlib.suppress(OSError):
                    peer.socket.sendall(message * 20)
                wait_until("it is cut off", peer.is_cut)
    assert server.log().count("(flood)") <= 150


def crowd(url: str, count: int, first_bytes: bytes) -> list[Peer]:
    """So many connections that say the same."""
    peers = []
    for _ in range(count):
        peers.append(Peer(url))
        with contextlib.suppress(OSError):
            peers[-1].socket.sendall(first_bytes)
    return peers


def all_cut(peers: list[Peer]) -> bool:
    """Closes those that were cut; whether that is all."""
    for peer in [peer for peer in peers if peer.is_cut()]:
        peer.socket.close()
        peers.remove(peer)
    return not peers


def test_2000_handshakes_that_never_end(server: Server, run: HonestRun) -> None:
    with withstands(server, run, "crowd"):
        peers = crowd(server.endpoint, CROWD, greeting()[:11])
        run.goes_on()
        wait_until("all are cut off", lambda: all_cut(peers))


def test_connections_that_send_a_byte_now_and_then(server: Server, run: HonestRun) -> None:
    """Each byte comes before the last one's time is up, the handshake's is not."""
    with withstands(server, run, "handshake"):
        peers = crowd(server.endpoint, 200, b"")
        said = greeting()

        def drip() -> bool:
            nonlocal said
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.socket.sendall(said[:1])
            said = said[1:] or b"\0"
            selectors.DefaultSelector().select(0.2)
            return all_cut(peers)

        wait_until("all are cut off", drip)


def test_2000_that_shook_hands_and_say_nothing_leave_room_for_others(server: Server, run: HonestRun) -> None:
    with withstands(server, run, "crowd"):
        peers = crowd(server.endpoint, CROWD, greeting() + ready())
        run.goes_on()
        with HonestRun(server.endpoint) as another:
            another.goes_on()
        wait_until("most are cut off", lambda: all_cut(peers) or len(peers) <= 256)
        for peer in peers:
            peer.socket.close()


def test_2000_connections_without_a_key(tmp_path: Path) -> None:
    for name in ("server", "trainer"):
        Keys(folder=tmp_path, name=name).run()
    (tmp_path / "allowed").write_bytes((tmp_path / "trainer.public").read_bytes())
    options = ("--curve-key", str(tmp_path / "server.secret"), "--curve-allow", str(tmp_path / "allowed"))
    credentials = Credentials(curve_key=tmp_path / "trainer.secret", curve_server=tmp_path / "server.public")
    with (
        Server(tmp_path, "/videos", "--workers", "1", *options) as server,
        HonestRun(server.endpoint, credentials) as run,
        withstands(server, run, "handshake"),
    ):
        peers = crowd(server.endpoint, CROWD, greeting() + ready())
        run.goes_on()
        wait_until("all are cut off", lambda: all_cut(peers))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_gateway_that_dies_costs_the_run_nothing(server: Server, run: HonestRun, number: signal.Signals) -> None:
    """Killed as by the system, and as libzmq does it when an assertion of it fails."""
    before = restarts(server)
    for times in (1, 2, 3):
        wait_until("a gateway", server.gateways)
        (gateway,) = server.gateways()
        os.kill(gateway, number)
        run.goes_on()
        assert restarts(server) == before + times
    assert server.process.poll() is None
    assert server.log().count(f"it died by signal {number.value}") == 3


def test_a_gateway_that_is_stopped_is_not_the_server(server: Server, run: HonestRun) -> None:
    (gateway,) = server.gateways()
    os.kill(gateway, signal.SIGSTOP)
    assert server.get("/healthz")[0] == 200
    os.kill(gateway, signal.SIGCONT)
    run.goes_on()


def test_the_server_s_own_process_holds_no_zeromq(server: Server, run: HonestRun) -> None:
    def maps(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text()

    run.goes_on()
    (gateway,) = server.gateways()
    assert "libzmq" in maps(gateway)
    assert "libzmq" not in maps(server.pid)
