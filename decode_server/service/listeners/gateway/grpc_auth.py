"""Who may call over gRPC: bearer tokens, certificates, and the handshakes that led nowhere. Knows no service.

gRPC tells nobody of a TLS handshake that failed. But it asks for the certificate at each one that begins, so a
connection that makes no call soon after is one that was refused, or has no business here.
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from decode_server.service.listeners.gateway.grpc_secrets import GrpcSecrets, HeldSecrets
from decode_server.service.listeners.gateway.refused_tally import RefusedTally

HANDSHAKE_S = 10.0  # from a connection to its first call
_PEERS = 4096  # that are remembered; an older one counts anew
_LOOK_S = 0.5
_CANCEL_S = 1.0
_OPEN = "/grpc.health.v1.Health/Check"  # probes have no token, and learn only whether the server serves

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Handshakes:
    """Which TLS connections were made and which of them called. Pure; times are the caller's."""

    def __init__(self) -> None:
        self._begun_s: deque[float] = deque()
        self._peers: OrderedDict[str, None] = OrderedDict()

    def begin(self, now_s: float) -> None:
        """A connection began its handshake."""
        self._begun_s.append(now_s)

    def called(self, peer: str) -> None:
        """A call came from an address; the first from there accounts for one connection, the oldest that waits."""
        if peer in self._peers:
            self._peers.move_to_end(peer)
            return
        self._peers[peer] = None
        if len(self._peers) > _PEERS:
            self._peers.popitem(last=False)
        if self._begun_s:
            self._begun_s.popleft()

    def overdue(self, now_s: float) -> int:
        """How many more have called nothing for so long that they count as refused."""
        count = 0
        while self._begun_s and now_s >= self._begun_s[0] + HANDSHAKE_S:
            self._begun_s.popleft()
            count += 1
        return count


class HandshakeWatch:
    """Tells of the connections that led to no call."""

    def __init__(self, refused: RefusedTally) -> None:
        self.handshakes = Handshakes()
        self._refused = refused

    async def run(self) -> None:
        """Look again and again."""
        while True:
            for _ in range(self.handshakes.overdue(time.monotonic())):
                why = f"no call {HANDSHAKE_S:g} s after it connected: no or another certificate than wanted, or no gRPC"
                self._refused.refuse("handshake", "a TLS client", why)
            await asyncio.sleep(_LOOK_S)


def tls_credentials(held: HeldSecrets, watch: HandshakeWatch) -> grpc.ServerCredentials:
    """What gRPC needs to speak TLS; it asks at each handshake, in its own threads, and `watch` hears of it."""
    assert held.now is not None
    shown = held.now

    def configuration() -> grpc.ServerCertificateConfiguration:
        pair = (shown.key, shown.certificate)
        return grpc.ssl_server_certificate_configuration((pair,), root_certificates=shown.client_ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """What to show from now on; None: what was shown before."""
        nonlocal shown
        watch.handshakes.begin(time.monotonic())
        before, shown = shown, held.now or shown
        return None if _tls(shown) == _tls(before) else configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(), fetch, require_client_authentication=shown.client_ca is not None
    )


def _tls(secrets: GrpcSecrets) -> tuple[bytes, bytes, bytes | None]:
    return secrets.certificate, secrets.key, secrets.client_ca


class AuthInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Sees every call before its service does: lets it pass, or ends it with UNAUTHENTICATED.

    A call that goes on when another token is wanted than it came with ends so too.
    """

    def __init__(self, held: HeldSecrets, watch: HandshakeWatch | None, refused: RefusedTally) -> None:
        self._held = held
        self._watch = watch
        self._refused = refused

    @property
    def _token(self) -> bytes | None:
        return None if self._held.now is None else self._held.now.token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """As grpc.aio.ServerInterceptor: the handler of a call, or one that refuses it."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        why = self._wrong_with(handler_call_details)
        if why:
            return grpc.stream_stream_rpc_method_handler(self._refuse(why))
        if self._watch is None and self._token is None:
            return handler
        return handler._replace(
            **{kind: self._noted(method) for kind in _KINDS if (method := getattr(handler, kind)) is not None}
        )

    def _wrong_with(self, call: grpc.HandlerCallDetails) -> str:
        token = self._token
        if token is None or call.method == _OPEN:
            return ""
        shown = [value for key, value in call.invocation_metadata if key == "authorization"]
        if len(shown) != 1:
            return f"{len(shown) or 'no'} tokens came with it, wanted one"
        given = shown[0].encode() if isinstance(shown[0], str) else shown[0]
        return "" if hmac.compare_digest(given, b"Bearer " + token) else "its token is not the one wanted"

    def _refuse(self, why: str) -> Callable[[object, grpc.aio.ServicerContext], Awaitable[None]]:
        async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
            self._note(context)
            self._refused.refuse("token", context.peer(), why)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)

        return refuse

    def _noted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, which notes first who calls it."""
        if inspect.isasyncgenfunction(method):

            async def noted_stream(request: object, context: grpc.aio.ServicerContext) -> AsyncIterator[object]:
                self._note(context)
                async for reply in method(request, context):
                    yield reply

            return noted_stream

        async def noted(request: object, context: grpc.aio.ServicerContext) -> object:
            self._note(context)
            if self._token is None:
                return await method(request, context)
            return await self._while_wanted(asyncio.ensure_future(method(request, context)), context)

        return noted

    async def _while_wanted(self, call: asyncio.Future[object], context: grpc.aio.ServicerContext) -> object:
        """What the call gives, unless another token is wanted before it ends."""
        came_with = self._token
        change = asyncio.ensure_future(self._held.change())
        try:
            while self._token == came_with:
                if call in (await asyncio.wait((call, change), return_when=asyncio.FIRST_COMPLETED))[0]:
                    return call.result()
                change = asyncio.ensure_future(self._held.change())
        finally:
            call.cancel()
            change.cancel()
        await asyncio.wait((call,), timeout=_CANCEL_S)
        why = "another token is wanted than it came with"
        self._refused.refuse("token", context.peer(), why)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
        return None

    def _note(self, context: grpc.aio.ServicerContext) -> None:
        if self._watch is not None:
            self._watch.handshakes.called(context.peer())
