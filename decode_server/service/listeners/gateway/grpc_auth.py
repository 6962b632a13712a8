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

from decode_server.service.listeners.security import Tls
from decode_server.service.refusals import Refusals

HANDSHAKE_S = 10.0  # from a connection to its first call
_PEERS = 4096  # that are remembered; an older one counts anew
_LOOK_S = 0.5
_TOKEN_LOOK_S = 1.0
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

    def __init__(self, refusals: Refusals) -> None:
        self.handshakes = Handshakes()
        self._refusals = refusals

    async def run(self) -> None:
        """Look again and again."""
        while True:
            for _ in range(self.handshakes.overdue(time.monotonic())):
                why = f"no call {HANDSHAKE_S:g} s after it connected: no or another certificate than wanted, or no gRPC"
                self._refusals.refuse("handshake", "a TLS client", why)
            await asyncio.sleep(_LOOK_S)


def tls_credentials(tls: Callable[[], Tls], watch: HandshakeWatch) -> grpc.ServerCredentials:
    """What gRPC needs to speak TLS; it asks at each handshake, in its own threads, and `watch` hears of it."""
    shown = tls()

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            ((shown.key, shown.certificate),), root_certificates=shown.client_ca
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """What to show from now on; None: what was shown before."""
        nonlocal shown
        watch.handshakes.begin(time.monotonic())
        before, shown = shown, tls()
        return None if shown is before else configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(), fetch, require_client_authentication=shown.client_ca is not None
    )


class AuthInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Sees every call before its service does: lets it pass, or ends it with UNAUTHENTICATED.

    A call that goes on when another token is wanted than it came with ends so too, within about two seconds.
    """

    def __init__(self, token: Callable[[], bytes] | None, watch: HandshakeWatch | None, refusals: Refusals) -> None:
        self._token = token
        self._watch = watch
        self._refusals = refusals

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
        if self._token is None or call.method == _OPEN:
            return ""
        shown = [value for key, value in call.invocation_metadata if key == "authorization"]
        if len(shown) != 1:
            return f"{len(shown) or 'no'} tokens came with it, wanted one"
        given = shown[0].encode() if isinstance(shown[0], str) else shown[0]
        return "" if hmac.compare_digest(given, b"Bearer " + self._token()) else "its token is not the one wanted"

    def _refuse(self, why: str) -> Callable[[object, grpc.aio.ServicerContext], Awaitable[None]]:
        async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
            self._note(context)
            self._refusals.refuse("token", context.peer(), why)
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
            return await self._while_wanted(self._token, asyncio.ensure_future(method(request, context)), context)

        return noted

    async def _while_wanted(
        self, token: Callable[[], bytes], call: asyncio.Future[object], context: grpc.aio.ServicerContext
    ) -> object:
        """What the call gives, unless another token is wanted before it ends."""
        came_with = token()
        try:
            while token() == came_with:
                if (await asyncio.wait((call,), timeout=_TOKEN_LOOK_S))[0]:
                    return call.result()
        finally:
            call.cancel()
        await asyncio.wait((call,), timeout=_TOKEN_LOOK_S)
        why = "another token is wanted than it came with"
        self._refusals.refuse("token", context.peer(), why)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
        return None

    def _note(self, context: grpc.aio.ServicerContext) -> None:
        if self._watch is not None:
            self._watch.handshakes.called(context.peer())
