"""The listener for grpc:// and grpcs://: what its gateway needs to know of this server. It knows no gRPC.

gRPC itself runs in a gateway, gateway/grpc_gateway.py, which listens at the port that this file holds. It is told what
the key files say now, and whether the server is ready.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Iterator, Sequence

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.lifecycle import Lifecycle, State
from decode_server.service.listeners.endpoint import Endpoint
from decode_server.service.listeners.gateway.gateway_listener import GatewayKind, GatewayListener
from decode_server.service.listeners.gateway.gateway_messages import FromFront, GrpcSetup, Serving
from decode_server.service.listeners.gateway.gateway_port import bind_port, url_of
from decode_server.service.listeners.gateway.gateway_process import GatewayEvents
from decode_server.service.listeners.gateway.grpc_secrets import GrpcSecrets, parts_of
from decode_server.service.listeners.security import ServerCredentials
from decode_server.service.refusals import Refusals
from framefeed.errors import BadInput

_START_S = 30.0  # until the first gateway listens
_STREAMS = 4096  # of all clients; health checks do not count
_CONNECTIONS = 4096  # and no more than half of the descriptors that a process may have
_MEMORY_BYTES = 1 << 30  # of a gateway's own, beside the replies on their way
_COPIES = 2  # of such a reply: the message, and gRPC's of it


class GrpcListener(GatewayListener):
    """See Listener. Listens from construction on, which takes as long as a process takes to start. Raises BadInput if
    the address cannot be had. Who connects while no gateway is there is refused, and tries again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        buffer_pool: BufferPool,
        *,
        lifecycle: Lifecycle,
        credentials: ServerCredentials,
        refusals: Refusals,
        events: GatewayEvents | None = None,
    ) -> None:
        self._lifecycle, self._credentials = lifecycle, credentials
        self._secure = endpoint.scheme == "grpcs"
        self._told_ready, self._told_secrets = False, GrpcSecrets()
        self._memory_bytes = _MEMORY_BYTES + _COPIES * buffer_pool.ranges.total_bytes
        port = bind_port(endpoint)
        # Who binds the port from now on has to share it, too, and be of this user: gRPC does. Nobody could before.
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kind = GatewayKind(
            url=url_of(endpoint, port),
            module="decode_server.service.listeners.gateway.grpc_gateway",
            port=port,
            inherits_port=False,
            first_words=self._first_words,
            clients_limit=_STREAMS,
        )
        self._address = kind.url.partition("://")[2]
        super().__init__(kind, buffer_pool, refusals=refusals, events=events)
        try:
            self._wait_until_up()
        except BaseException:
            self.close(linger_s=0)
            raise

    def flush(self) -> None:
        """See Listener; tells the gateway what has changed."""
        for message in self._news():
            self._gateway.say(message)
        super().flush()

    def _wait_until_up(self) -> None:
        """Blocks until the first gateway listens, so that who reads where this server is can connect."""
        until_s = time.monotonic() + _START_S
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while not self.is_up:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise BadInput(f"bind: {self.url}: no gateway listens there after {_START_S:g} s")
            poll.poll(min(left_s, 0.1) * 1000)
            self.hear()

    def _first_words(self, buffer_pool_fd: int, parent: int) -> Sequence[FromFront]:
        self._told_ready, self._told_secrets = self._is_ready(), self._secrets()
        setup = GrpcSetup(
            parent=parent,
            buffer_pool=buffer_pool_fd,
            address=self._address,
            secure=self._secure,
            secrets=self._told_secrets != GrpcSecrets(),
            ready=self._told_ready,
            streams=_STREAMS,
            connections=_connections(),
            memory_bytes=self._memory_bytes,
        )
        return [setup, *parts_of(self._told_secrets)]

    def _news(self) -> Iterator[FromFront]:
        ready, secrets = self._is_ready(), self._secrets()
        if secrets != self._told_secrets:
            self._told_secrets = secrets
            yield from parts_of(secrets)
        if ready != self._told_ready:
            self._told_ready = ready
            yield Serving(ready)

    def _is_ready(self) -> bool:
        return self._lifecycle.state is State.READY

    def _secrets(self) -> GrpcSecrets:
        """What the files say, as of at most a second ago."""
        token = None if self._credentials.token is None else self._credentials.token()
        if not self._secure or self._credentials.tls is None:
            return GrpcSecrets(token=token)
        tls = self._credentials.tls()
        return GrpcSecrets(certificate=tls.certificate, key=tls.key, client_ca=tls.client_ca, token=token)


def _connections() -> int:
    """How many there may be: a gateway needs descriptors for other things, too."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS if limit == resource.RLIM_INFINITY else min(_CONNECTIONS, limit // 2)
