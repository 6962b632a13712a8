"""The proxy does to a real connection exactly what it is told, once, and otherwise nothing."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.proxy import Proxy
from tests.chaos.schedule import WIRE_FAULTS, Fault, Storm, arrivals
from tests.chaos.zmtp import Messages
from tests.integration.serving import PATIENCE_S, wait_until


class Echo:
    """A ROUTER that sends each message back in two frames, through a proxy to a DEALER."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._dealer = self._context.socket(zmq.DEALER)
        for socket_ in (self._router, self._dealer):
            socket_.setsockopt(zmq.LINGER, 0)
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self.proxy = Proxy(port, seed=1)
        self._dealer.connect(f"tcp://{self.proxy.address}")

    def send(self, text: bytes, *, patience_ms: int = 20_000) -> list[bytes] | None:
        """What arrives at the server for it, which sends it back; None if nothing does."""
        self._dealer.send(text)
        if not self._router.poll(patience_ms):
            return None
        client, *parts = self._router.recv_multipart()
        self._router.send_multipart([client, *parts, b"pixels" * 50_000])
        return parts

    def receive(self, *, patience_ms: int = 20_000) -> list[bytes] | None:
        return self._dealer.recv_multipart() if self._dealer.poll(patience_ms) else None

    def close(self) -> None:
        self._context.destroy(0)


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    with echo.proxy:
        assert echo.send(b"hello") == [b"hello"]
        assert echo.receive() == [b"hello", b"pixels" * 50_000]
        yield echo
        echo.close()


def test_a_lost_request_never_arrives_and_the_next_one_does(echo: Echo) -> None:
    echo.proxy.order(Fault.LOSE_REQUEST)
    assert echo.send(b"lost", patience_ms=300) is None
    assert echo.send(b"next") == [b"next"]
    assert echo.receive() == [b"next", b"pixels" * 50_000]


def test_a_fault_does_not_lie_in_wait(echo: Echo) -> None:
    echo.proxy.order(Fault.LOSE_REQUEST)
    assert not echo._router.poll(1100)
    assert echo.send(b"later") == [b"later"]
    assert not echo.proxy.done


def test_a_lost_reply_was_sent_and_the_next_one_arrives(echo: Echo) -> None:
    echo.proxy.order(Fault.LOSE_REPLY)
    assert echo.send(b"one") == [b"one"]
    assert echo.receive(patience_ms=300) is None
    echo.send(b"two")
    assert echo.receive() == [b"two", b"pixels" * 50_000]


def test_a_doubled_reply_comes_twice(echo: Echo) -> None:
    echo.proxy.order(Fault.DOUBLE_REPLY)
    echo.send(b"one")
    assert echo.receive() == echo.receive() == [b"one", b"pixels" * 50_000]


def test_a_spoiled_header_differs_in_one_byte_and_pixels_never(echo: Echo) -> None:
    echo.proxy.order(Fault.SPOIL_REPLY)
    echo.send(b"abcdef")
    header, pixels = echo.receive() or []
    assert sum(a != b for a, b in zip(header, b"abcdef", strict=True)) == 1
    assert pixels == b"pixels" * 50_000
    echo.proxy.order(Fault.SPOIL_REQUEST)
    (spoiled,) = echo.send(b"abcdef") or []
    assert sum(a != b for a, b in zip(spoiled, b"abcdef", strict=True)) == 1


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.CUT_MID_REPLY])
def test_after_a_cut_the_half_reply_is_none_and_a_new_connection_works(echo: Echo, fault: Fault) -> None:
    monitor = echo._dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    echo.proxy.order(fault)
    if fault is Fault.CUT_MID_REPLY:
        echo.send(b"cut")
    assert monitor.poll(int(PATIENCE_S * 1000)), "nothing was cut"
    echo._dealer.disable_monitor()
    monitor.close()
    assert echo.proxy.done[fault] == 1
    assert echo.send(b"again") == [b"again"]
    assert echo.receive() == [b"again", b"pixels" * 50_000]


def test_a_delay_holds_replies_back_and_then_lets_them_go(echo: Echo) -> None:
    echo.proxy.order(Fault.DELAY, lasts_s=0.5)
    wait_until("the delay", lambda: echo.proxy.done[Fault.DELAY] == 1)
    echo.send(b"late")
    assert not echo._dealer.poll(50)
    assert echo.receive() == [b"late", b"pixels" * 50_000]


def test_bytes_of_any_protocol_go_through_and_a_closed_end_closes_the_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener.getsockname()[1], seed=1, zmtp=False)
        host, _, port = proxy.address.partition(":")
        with proxy, socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
            server, _ = listener.accept()
            with server:
                server.settimeout(PATIENCE_S)
                sender = threading.Thread(target=client.sendall, args=(b"some bytes" * 1_000_000,))
                sender.start()
                seen = 0
                while seen < 10_000_000:
                    seen += len(server.recv(1 << 16))
                sender.join(PATIENCE_S)
            with pytest.raises(ConnectionResetError):
                client.recv(10)


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=6), st.integers(1, 50), st.booleans())
def test_a_stream_is_cut_into_its_messages_however_its_bytes_come(bodies: list[bytes], step: int, long: bool) -> None:
    stream, pieces = bytes(64), Messages()
    for number, body in enumerate(bodies):
        head, size = b"h%d" % number, 8 if long or len(body) > 255 else 1
        stream += bytes([1, len(head)]) + head + bytes([2 * (size == 8)]) + len(body).to_bytes(size) + body
        stream += b"\4\5\4PING"
    found = [p for at in range(0, len(stream), step) for p in pieces.feed(stream[at : at + step])]
    assert b"".join(piece.data for piece in found) == stream
    headers = [piece.data[piece.header] for piece in found if piece.header is not None]
    assert headers == [b"h%d" % number for number in range(len(bodies))]


def test_a_storm_is_its_seed_and_has_its_rate() -> None:
    storm = Storm(rate_hz=2.0, span_s=500, servers=4, lasts_s=3.0)
    found = arrivals(storm, seed=5)
    assert found == arrivals(storm, seed=5) != arrivals(storm, seed=6)
    assert [a.at_s for a in found] == sorted(a.at_s for a in found)
    assert abs(len(found) - 1000) < 4 * 1000**0.5
    assert {a.fault for a in found} == set(Fault)
    assert {a.server for a in found} == set(range(4))
    assert all(0.3 <= a.lasts_s <= 3.0 for a in found)
    gaps = [b.at_s - a.at_s for a, b in itertools.pairwise(found)]
    longer = sum(gap > 0.5 for gap in gaps) / len(gaps)  # exponential: 1/e of them
    assert 0.32 < longer < 0.42
    only = Storm(rate_hz=5.0, span_s=50, servers=1, lasts_s=1.0, faults=WIRE_FAULTS)
    assert {a.fault for a in arrivals(only, seed=1)} == set(WIRE_FAULTS)
