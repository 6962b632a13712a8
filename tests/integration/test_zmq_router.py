"""The ROUTER of a gateway and what stands around it, over real sockets in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from decode_server.service.listeners.gateway.gateway_messages import Reply
from decode_server.service.listeners.gateway.zmq_deliveries import Deliveries
from decode_server.service.listeners.gateway.zmq_inbound import MOST_PARTS, Inbound, InboundMessages
from decode_server.service.listeners.gateway.zmq_router import REPLIES_PER_CLIENT, Names, open_router
from decode_server.service.listeners.gateway.zmq_zap import Zap
from framefeed.wire import ClipReply
from tests.integration.serving import Client, Server, request, wait_until

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def context() -> Iterator[Context]:
    one: Context = zmq.Context()
    yield one
    one.destroy(0)


def connected(context: Context, router: zmq.Socket[bytes], **options: int) -> zmq.Socket[bytes]:
    """A client of the router."""
    if not router.getsockopt(zmq.LAST_ENDPOINT).startswith(b"tcp"):
        router.bind("tcp://127.0.0.1:*")
    dealer = context.socket(zmq.DEALER)
    for name, value in options.items():
        dealer.setsockopt(getattr(zmq, name), value)
    dealer.connect(router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())
    return dealer


def first_name(context: Context) -> bytes:
    """The name of the first client of a new router."""
    router = open_router(context, curve_secret="")
    dealer = connected(context, router)
    dealer.send(b"x")
    assert router.poll(20_000)
    return router.recv_multipart()[0]


def test_names_begin_where_nobody_can_guess(context: Context) -> None:
    """Whatever the C library's state was before, which is the same in every process that begins."""
    libc = ctypes.CDLL(None)
    names = set()
    for _ in range(8):
        libc.srand(1)
        names.add(first_name(context))
    assert len(names) == 8
    plain = set()
    for _ in range(6):  # other threads of this process may draw between the two lines
        libc.srand(1)
        router = context.socket(zmq.ROUTER)
        dealer = connected(context, router)
        dealer.send(b"x")
        plain.add(router.recv_multipart()[0])
    assert len(plain) < 6, "ZeroMQ seeds by itself now, and seed_names is not needed"


def test_names_that_zeromq_gave_are_told_from_others(context: Context) -> None:
    router = open_router(context, curve_secret="")
    names = Names(context, router)
    given, dealers = [], []
    for _ in range(3):
        names.made()
        dealers.append(connected(context, router))
        dealers[-1].send(b"x")
        given.append(router.recv_multipart()[0])
    assert all(map(names.has_given, given))
    first = int.from_bytes(given[0][1:])
    for other in (-2, 4, 5, 1 << 31):
        assert not names.has_given(b"\0" + ((first + other) % (1 << 32)).to_bytes(4))
    for chosen in (b"", b"trainer", b"\1" + given[0][1:], given[0] + b"\0", given[0][:4]):
        assert not names.has_given(chosen)


def taken(inbound: InboundMessages, count: int) -> list[Inbound]:
    found: list[Inbound] = []
    wait_until("messages", lambda: found.extend(inbound.take()) or len(found) >= count)
    return found


def test_of_a_message_with_many_parts_nothing_is_kept_and_the_next_is_whole(context: Context) -> None:
    router = open_router(context, curve_secret="")
    dealer, inbound = connected(context, router), InboundMessages(router)
    for parts in (1, 2, MOST_PARTS - 1, MOST_PARTS, 20_000, 1):
        dealer.send_multipart([b"first"] + [b"more"] * (parts - 1))
    found = taken(inbound, 6)
    assert [message.frames for message in found[:3]] == [[b"first"], [b"first", b""], [b"first", b""]]
    assert [message.is_flood for message in found] == [False, False, False, True, True, False]
    assert found[-1].frames == [b"first"]


def test_a_flood_is_thrown_away_within_several_turns(context: Context) -> None:
    router = open_router(context, curve_secret="")
    dealer, inbound = connected(context, router), InboundMessages(router)
    dealer.send_multipart([b""] * 50_000)
    dealer.send(b"next")
    found, turns = taken(inbound, 1), 1
    assert found[0].is_flood
    while not (more := inbound.take()):
        turns += 1
    assert turns >= 10
    assert more[0].frames == [b"next"]


def test_replies_wait_for_a_client_that_does_not_read_and_none_is_lost(context: Context) -> None:
    router = open_router(context, curve_secret="")
    dealer = connected(context, router, RCVHWM=1, RCVBUF=4096)
    dealer.send(b"x")
    client = router.recv_multipart()[0]
    pool = memoryview(bytes(range(256)) * (1 << 14))
    deliveries = Deliveries(router, pool)
    count = 3 * REPLIES_PER_CLIENT
    for number in range(count):
        deliveries.send(Reply(number, client, b"%d" % number, number, 1 << 20))
    done: list[int] = deliveries.tend()
    assert deliveries.busy
    assert len(done) < count
    for number in range(count):
        wait_until("a reply", lambda: done.extend(deliveries.tend()) or dealer.poll(0))
        header, pixels = dealer.recv_multipart()
        assert header == b"%d" % number
        assert pixels == pool[number : number + (1 << 20)]
    wait_until("all are done", lambda: done.extend(deliveries.tend()) or len(done) == count)
    assert done == list(range(count))
    assert not deliveries.busy


def test_replies_to_who_is_gone_are_done(context: Context) -> None:
    router = open_router(context, curve_secret="")
    deliveries = Deliveries(router, memoryview(bytes(100)))
    deliveries.send(Reply(1, b"\0none", b"header", 0, 50))
    assert deliveries.tend() == [1]
    assert not deliveries.busy


def test_the_answer_to_a_key_lets_its_client_in_or_not(context: Context) -> None:
    zap = Zap(context, most=1)
    public, secret = zmq.curve_keypair()
    router = open_router(context, curve_secret=secret.decode())
    router.bind("tcp://127.0.0.1:*")
    url = router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()

    def client() -> tuple[zmq.Socket[bytes], str]:
        ours, our_secret = zmq.curve_keypair()
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.CURVE_SERVERKEY, public)
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, ours)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, our_secret)
        dealer.connect(url)
        dealer.send(b"x")
        return dealer, ours.decode()

    clients = [client()]
    key = clients[0][1]
    assert zap.socket.poll(20_000)
    asked = zap.ask()
    assert asked is not None
    assert asked[1] == key
    assert not router.poll(0), "nobody has answered yet"
    zap.answer(asked[0], allowed=True)
    assert router.poll(20_000)
    part = router.recv(copy=False)
    assert part.get("User-Id") == key
    assert router.recv() == b"x"
    zap.answer(asked[0], allowed=True)  # it is answered already
    clients.append(client())
    assert zap.socket.poll(20_000)
    refused = zap.ask()
    assert refused is not None
    zap.answer(refused[0], allowed=False)
    assert zap.ask() is None
    assert len(z85.decode(key)) == 32
    for dealer, _ in clients:
        dealer.close(0)
    router.close(0)
    zap.close()


@pytest.mark.slow
def test_each_of_many_that_come_and_go_is_answered(tmp_path: Path) -> None:
    """ZeroMQ may hand over a first message before it tells of the connection that it came over."""
    with Server(tmp_path, "/videos", "--workers", "1") as server:
        for _ in range(300):
            with Client(server.endpoint) as client:
                reply, _ = client.decode(request())
                assert isinstance(reply, ClipReply)
        assert not server.metrics().get('framefeed_server_replies_dropped_total{reason="client_gone"}')
