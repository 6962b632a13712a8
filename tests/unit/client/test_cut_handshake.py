"""A connection that is cut within its handshake: once it says nothing of credentials, again and again it does."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from trainer_client.transports.transport import TransportLimits
from trainer_client.transports.zmq_link import Link

PATIENCE_S = 20.0


@contextlib.contextmanager
def link_to(url: str) -> Iterator[Link]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link = Link(url, context, TransportLimits(clip_bytes=1000), peers=set())
    try:
        yield link
    finally:
        link.close()
        context.term()


def follow(link: Link, until: Callable[[], bool]) -> None:
    """Be its transport, until something is so."""
    until_s = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < until_s, link.trouble
        select.select(link.fds, [], [], 0.01)
        link.changes()
        if link.due(time.monotonic()):
            link.close()
            link.open_again()


def cut_one(listener: socket.socket) -> None:
    listener.settimeout(PATIENCE_S)
    client, _ = listener.accept()
    with client:
        assert client.recv(1), "it began"


def cut_waiting(listener: socket.socket) -> bool:
    """Cut whoever has begun; True never."""
    if select.select([listener], [], [], 0)[0]:
        cut_one(listener)
    return False


@pytest.mark.parametrize("listens_on", [True, False])
def test_one_cut_handshake_is_no_refusal_and_two_are(listens_on: bool, caplog: pytest.LogCaptureFixture) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        link_to(f"tcp://127.0.0.1:{listener.getsockname()[1]}") as link,
    ):
        cut_one(listener)
        if not listens_on:
            listener.close()
            follow(link, lambda: link.trouble == "refuses connections: nothing listens there")
            assert "CURVE" not in caplog.text
            return
        follow(link, lambda: link.trouble.startswith("cut the connection within the handshake"))
        assert caplog.text == ""
        follow(link, lambda: cut_waiting(listener) or link.trouble.startswith("refuses this client: it wants CURVE"))
        assert caplog.text.count("refuses this client: it wants CURVE") == 1
