"""A message whose connection is not told of yet is kept until it is, and its client loses nothing. Real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from decode_server.service.listeners.gateway.zmq_inbound import Inbound, InboundMessages
from decode_server.service.listeners.gateway.zmq_peers import Peers
from decode_server.service.listeners.gateway.zmq_router import Names, open_router, peer_of, source_of
from tests.integration.serving import wait_until


class Door:
    """A bound ROUTER, who is connected to it, and a client."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.router = open_router(context, curve_secret="")
        self.peers = Peers(self.router, Names(context, self.router), most=64, wanted="ZMTP")
        self.inbound = InboundMessages(self.router)
        self.router.bind("tcp://127.0.0.1:0")
        self.url = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.client = context.socket(zmq.DEALER)
        self.client.connect(self.url)

    def receive(self) -> list[Inbound]:
        """What came next of the client, as it comes out of the ROUTER."""
        came: list[Inbound] = []
        wait_until("a message", lambda: came.extend(self.inbound.take()) or came)  # type: ignore[func-returns-value]
        return came


@pytest.fixture
def door() -> Iterator[Door]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    one = Door(context)
    yield one
    one.router.disable_monitor()
    one.peers.monitor.close(0)
    one.router.close(0)
    one.client.close(0)
    context.term()


def held_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> list[Inbound]:
    """The client's first two messages, of whose connection nothing is heard yet."""
    monkeypatch.setattr(door.peers, "hear", lambda: None)
    door.client.send(b"one")
    first = door.receive()
    assert door.peers.known(first) == []
    door.client.send(b"two")
    second = door.receive()
    assert door.peers.known(second) == []
    assert door.peers.waits
    return [*first, *second]


def test_messages_that_overtake_what_is_told_of_their_connection_are_kept(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = held_up(door, monkeypatch)
    monkeypatch.undo()
    assert door.peers.known([]) == sent
    assert not door.peers.waits
    assert [door.peers.principal(message) for message in sent] == ["127.0.0.1", ""]
    assert door.peers.left == []


def test_a_connection_is_not_taken_for_the_one_that_had_its_descriptor_before(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is not told of yet: it must not end the new one."""
    monkeypatch.setattr(door.peers, "hear", lambda: None)
    door.client.send(b"one")
    (first,) = door.receive()
    fd = source_of(first.source)
    assert fd is not None
    door.peers.table.made(fd, ("127.0.0.1", 1))
    assert door.peers.known([first]) == []
    monkeypatch.undo()
    door.peers.table.ended(fd)
    assert door.peers.known([]) == [first]
    assert door.peers.principal(first) == "127.0.0.1"
    connection = door.peers.table.of(first.client)
    assert connection is not None
    assert connection.peer == peer_of(fd)
    assert door.peers.left == []
