"""Who is connected to a gateway: who comes and goes, who may stay, and what is refused. It reads no call.

It hears of connections by the ROUTER's monitor, and knows which of them a client's is by the first message from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import zmq
from zmq.utils.monitor import recv_monitor_message

from decode_server.service.listeners.churn import CUTS, WITHIN_S, Churn
from decode_server.service.listeners.gateway.refused_tally import RefusedTally
from decode_server.service.listeners.gateway.zmq_connections import UNHEARD_BYTES, Connection, ConnectionTable
from decode_server.service.listeners.gateway.zmq_inbound import MOST_PARTS, Inbound
from decode_server.service.listeners.gateway.zmq_router import (
    Names,
    cut,
    has_message,
    peer_of,
    received_bytes,
    source_of,
)
from framefeed.wire import MAX_HEADER_BYTES
from framefeed.zmtp import protocol_error

log = logging.getLogger("framefeed.serve")

_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_EVENTS = _FAILURES | zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED
_EVENTS |= zmq.EVENT_DISCONNECTED
_BANNED = 1 << 14
_TOLD_S = 5.0  # after its first message; the thread that tells was held up, or nobody will
_MOST_KEPT = 1 << 10
_EVENTS_A_TURN = 1 << 16  # all, so that each message is from a connection that is known


class Peers:
    """All connections of a ROUTER that is not bound yet."""

    def __init__(self, router: zmq.Socket[bytes], names: Names, *, most: int, wanted: str) -> None:
        """At most so many connections; `wanted` says, for log lines, what a client has to speak."""
        self.monitor = router.get_monitor_socket(_EVENTS)
        self.table = ConnectionTable(most)
        self.left: list[bytes] = []  # clients whose connections ended, until somebody takes them
        self._names, self._wanted = names, wanted
        self._known: dict[bytes, Connection | None] = {}
        self._banned: dict[bytes, None] = {}  # of whose messages some may still lie in ZeroMQ
        self._kept: list[tuple[Inbound, float]] = []  # and when they came
        self.refused = RefusedTally()
        self._churn = Churn()

    def hear(self) -> bool:
        """Take in who came and who went, at most a turn's worth; whether that was all."""
        for _ in range(_EVENTS_A_TURN):
            if not has_message(self.monitor):
                return True
            happened = recv_monitor_message(self.monitor)
            event, value = happened["event"], happened["value"]
            if event == zmq.EVENT_ACCEPTED:
                self._made(value)
            elif event == zmq.EVENT_DISCONNECTED:
                self._ended(value, happened["endpoint"].decode())
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._churn.made(time.monotonic())
            elif event == zmq.EVENT_ACCEPT_FAILED:
                self.refused.refuse(
                    "descriptors", f"a client of {happened['endpoint'].decode()}", "it could not be accepted"
                )
            elif event != zmq.EVENT_HANDSHAKE_FAILED_AUTH:  # whoever said no to its key has told that
                self._handshake_failed(event, value, happened["endpoint"].decode())
        return False

    def known(self, messages: Sequence[Inbound]) -> list[Inbound]:
        """Those of these messages, and of those kept before, of whose connections it is known what became.

        ZeroMQ tells of a connection once another thread has it, whose first message may be here before that, and before
        the end of the connection that had its descriptor. Such messages, and those behind them, are kept.
        """
        now_s = time.monotonic()
        new = [(message, now_s) for message in messages]
        if self._kept or any(message.client not in self._known for message in messages):
            self.hear()
        known: list[Inbound] = []
        kept: list[tuple[Inbound, float]] = []
        untold: set[bytes] = set()
        for message, came_s in (*self._kept, *new):
            client = message.client
            if client in untold or (client not in self._known and self._is_untold(message, now_s - came_s)):
                untold.add(client)
                kept.append((message, came_s))
            else:
                known.append(message)
        self._kept = kept
        return known

    @property
    def waits(self) -> bool:
        """Whether messages are kept until it is told where they came from."""
        return bool(self._kept)

    @property
    def is_full(self) -> bool:
        """Whether no more should be kept."""
        return len(self._kept) >= _MOST_KEPT

    def _is_untold(self, message: Inbound, waited_s: float) -> bool:
        """Whether its connection stands, and another or none is known to have its descriptor."""
        fd = source_of(message.source)
        if fd is None or waited_s > _TOLD_S:
            return False
        connection, peer = self.table.at(fd), peer_of(fd)
        return peer is not None and (connection is None or connection.peer != peer)

    def principal(self, message: Inbound) -> str | None:
        """Who a client is whose first message this is: its key, or else its address; "" if it was told before.

        None if it may not say anything: then it is cut off.
        """
        connection = self._known.get(message.client)
        if connection is not None and not message.is_flood:
            connection.messages += 1
            return ""
        if message.client in self._banned:
            return None
        fd = source_of(message.source)
        if fd is None:
            self._ban(message.client, fd, "handshake", f"it speaks ZMTP of before version 3, wanted {self._wanted}")
            return None
        if not self._names.has_given(message.client):
            self._ban(message.client, fd, "identity", "it came under a name of its own choice, which may be another's")
            return None
        if message.is_flood:
            self._ban(message.client, fd, "flood", f"it sent a message of {MOST_PARTS} parts or more, wanted one")
            return None
        before = self.table.proved(fd, message.client)
        if before:
            self._known.pop(before, None)
            self.left.append(before)
        if before is None:  # its connection has ended, and nothing else will tell that
            self.left.append(message.client)
        elif (found := self.table.of(message.client)) is not None:
            self._known[message.client] = found
            found.messages += 1
        key = message.source.get("User-Id") if self._wanted.startswith("CURVE") else ""
        return str(key or message.source.get("Peer-Address"))

    def cut_client(self, client: bytes) -> None:
        """End a client's connection."""
        connection = self.table.of(client)
        if connection is not None:
            cut(connection)

    def cut_endless(self) -> None:
        """End the connections over which much has come that is no whole message."""
        for connection in self.table:
            if not connection.is_cut and connection.unheard_bytes(received_bytes(connection)) > UNHEARD_BYTES:
                self._refuse_and_cut(connection, "flood", f"it sent {UNHEARD_BYTES} bytes without the end of a message")

    def _made(self, fd: int) -> None:
        self._names.made()
        victim = self.table.made(fd, peer_of(fd) or ("", 0))
        if victim is not None:
            connection, why = victim
            self._refuse_and_cut(connection, "crowd", f"{why}, and it has said nothing yet")

    def _ended(self, fd: int, endpoint: str) -> None:
        connection = self.table.ended(fd)
        if connection is not None and connection.client:
            self._known.pop(connection.client, None)
            self.left.append(connection.client)
        if self._churn.cut(time.monotonic()):
            log.warning(
                "%s: %d connections were made and %d cut within %g s: clients that come and go, that send more than "
                "%d bytes at once, or that accept no clips as large as they ask for",
                *(endpoint, CUTS, CUTS, WITHIN_S, 2 * MAX_HEADER_BYTES),
            )

    def _handshake_failed(self, event: int, value: int, endpoint: str) -> None:
        protocol = event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        why = protocol_error(value) if protocol else "it ended the handshake, as who speaks or trusts another does"
        self.refused.refuse(
            "handshake", f"a client of {endpoint}", f"its handshake failed, wanted {self._wanted}: {why}"
        )

    def _ban(self, client: bytes, fd: int | None, reason: str, why: str) -> None:
        """Hear a client no more, and cut the connection it came over, if that is known and not another's now."""
        self._banned[client] = None
        if len(self._banned) > _BANNED:
            del self._banned[next(iter(self._banned))]
        connection = None if fd is None else self.table.at(fd)
        if connection is None or connection.client not in (b"", client):
            self.refused.refuse(reason, "a client that has gone or is not known", why)
        else:
            self._refuse_and_cut(connection, reason, why)

    def _refuse_and_cut(self, connection: Connection, reason: str, why: str) -> None:
        if not connection.is_cut:
            self.refused.refuse(reason, f"a client at {connection.peer[0]}:{connection.peer[1]}", why)
            connection.is_cut = True
        cut(connection)
