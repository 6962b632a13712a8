"""The listener for tcp://: which keys may connect. ZeroMQ itself runs in a gateway, gateway/zmq_gateway.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.listeners.endpoint import Endpoint
from decode_server.service.listeners.gateway.gateway_listener import (
    GatewayKind,
    GatewayListener,
    connections_limit,
)
from decode_server.service.listeners.gateway.gateway_messages import (
    AskKey,
    FromFront,
    FromGateway,
    KeyVerdict,
    ZmqSetup,
)
from decode_server.service.listeners.gateway.gateway_port import bind_port, explain_bind, url_of
from decode_server.service.listeners.gateway.gateway_process import GatewayEvents
from decode_server.service.listeners.security import Curve
from decode_server.service.refusals import Refusals
from framefeed.errors import BadInput

IO_THREADS, CONNECTIONS = 2, 4096
_BACKLOG = 1024
_MEMORY_BYTES, _CURVE_MEMORY_BYTES = 1 << 30, 4 << 30  # of a gateway's own; CURVE enciphers copies of what it sends


@dataclass(frozen=True, slots=True, kw_only=True)
class ZmqLimits:
    """Threads that send, receive and encipher, over which connections are spread; and how many connections."""

    io_threads: int = IO_THREADS
    connections: int = CONNECTIONS


class ZmqListener(GatewayListener):
    """See Listener. Raises BadInput if the address cannot be had. Who connects while no gateway is there waits.

    With `curve` only clients that have one of its keys can connect, and ask for as long as it is on the list.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        buffer_pool: BufferPool,
        *,
        refusals: Refusals,
        curve: Curve | None = None,
        limits: ZmqLimits | None = None,
        events: GatewayEvents | None = None,
    ) -> None:
        limits = limits or ZmqLimits()
        self._curve = curve
        listening = bind_port(endpoint)
        try:
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise BadInput(explain_bind(endpoint.url, error)) from None
        most = connections_limit(limits.connections)

        def first_words(buffer_pool_fd: int, parent: int) -> Sequence[FromFront]:
            setup = ZmqSetup(
                parent=parent,
                listening=listening.fileno(),
                buffer_pool=buffer_pool_fd,
                curve_secret="" if curve is None else curve.secret.decode(),
                io_threads=limits.io_threads,
                connections=most,
                memory_bytes=_MEMORY_BYTES if curve is None else _CURVE_MEMORY_BYTES,
            )
            return [setup]

        kind = GatewayKind(
            url=url_of(endpoint, listening),
            module="decode_server.service.listeners.gateway.zmq_gateway",
            port=listening,
            inherits_port=True,
            first_words=first_words,
            clients_limit=most,
        )
        super().__init__(kind, buffer_pool, refusals=refusals, events=events)

    def _hear(self, message: FromGateway) -> None:
        if isinstance(message, AskKey):
            allowed = self._is_allowed(message.key, "it is not on the list of --curve-allow")
            self._gateway.say(KeyVerdict(message.number, allowed))
        else:
            super()._hear(message)

    def _may_ask(self, principal: str) -> bool:
        """Unless its key is not on the list any more: ZeroMQ asks at handshakes only."""
        return self._is_allowed(principal, "it is no longer on the list of --curve-allow")

    def _is_allowed(self, key: str, why_not: str) -> bool:
        if self._curve is None or key.encode() in self._curve.allowed():
            return True
        self._refusals.refuse("key", f"client key {key}", why_not)
        return False
