"""What a raw peer can do to libzmq costs one process that is replaced, or less; an honest run beside it sees nothing.

After each attack: every clip of the run was right and in its place, the server is the same process, what all of its
processes hold grew by at most 64 MiB, and a counter names the attack.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from decode_server.service.listeners.curve import Keys
from tests.chaos.zmtp import greeting, part, ready
from tests.integration.adversary import CROWD, HonestRun, Peer, all_cut, crowd, restarts, withstands
from tests.integration.serving import Server, wait_until
from trainer_client.transports.credentials import Credentials

pytestmark = pytest.mark.slow

UNSEEDED = 0x6B8B4567  # where ZeroMQ's names begin if nobody seeds the C library's rand


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


ENDLESS = {"empty parts": part(b"", more=True) * 4096, "large parts": part(bytes(1 << 16), more=True)}


@pytest.mark.parametrize("parts", ENDLESS)
def test_a_message_without_an_end_is_cut_off(server: Server, run: HonestRun, parts: str) -> None:
    with withstands(server, run, "flood"), Peer(server.endpoint) as peer:
        assert peer.shake_hands().flood(ENDLESS[parts], 1 << 30), "a GiB was taken"


OLD = {
    "version 1": b"\x01\x00" + b"\x08\x00message",
    "version 2": b"\xff" + bytes(8) + b"\x7f\x01\x05" + b"\x00\x00" + b"\x00\x07message",
}


@pytest.mark.parametrize("version", OLD)
def test_a_peer_of_an_old_zmtp_is_not_heard(server: Server, run: HonestRun, version: str) -> None:
    """Of its messages libzmq does not say which connection they came over."""
    gateways = server.gateways()
    with withstands(server, run, "handshake"), contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(Peer(server.endpoint)).socket.sendall(OLD[version])
        wait_until("it is told", lambda: "it speaks ZMTP of before version 3" in server.log())
    assert server.gateways() == gateways


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
    before, died = restarts(server), f"it died by signal {number.value}"
    told = server.log().count(died)
    for times in (1, 2, 3):
        wait_until("a gateway", server.gateways)
        (gateway,) = server.gateways()
        os.kill(gateway, number)
        run.goes_on()
        wait_until("it is counted", lambda times=times: restarts(server) == before + times)  # type: ignore[misc]
    assert server.process.poll() is None
    wait_until("each is told", lambda: server.log().count(died) == told + 3)


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
