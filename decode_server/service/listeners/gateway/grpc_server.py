"""gRPC's asyncio server, of which no call can end the loop that takes calls.

In that loop grpc.aio decodes the name of a method that nobody registered as UTF-8: a name that is none ends it, and
with it every connection (grpcio 1.80 to 1.85, `AioServer._server_main_loop`). So each method is registered with gRPC's
core, and calls that match none are taken beside the loop and answered UNIMPLEMENTED, whatever their name is. Where
grpcio has none of what that takes, the plain server serves: its gateway ends itself then, and another takes its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server

from decode_server.service.listeners.gateway.refused_tally import RefusedTally

log = logging.getLogger("framefeed.gateway")

_NEEDED = ("_make_request_call_future", "_request_call", "add_registered_method_handlers")


_UNKNOWN = "it calls a method that no service here has"


class _AnyMethod:
    """Handles whatever is called, by refusing it."""

    def __init__(self, refused: RefusedTally) -> None:
        self._refused = refused

    def resolve_handler(self, _: object) -> grpc.RpcMethodHandler:
        """As cygrpc's own, asked by its `_find_method_handler`."""
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, _: object, context: grpc.aio.ServicerContext) -> None:
        self._refused.refuse("nonsense", context.peer(), _UNKNOWN)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, _UNKNOWN)


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """The server of gRPC's core, which asks `_make_request_call_future` for the next call of each kind."""

    def __init__(self, refused: RefusedTally, loop: asyncio.AbstractEventLoop, *args: object) -> None:
        super().__init__(loop, *args)
        self._any_method, self._event_loop = _AnyMethod(refused), loop
        self._refusals: set[asyncio.Task[None]] = set()

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[object]:
        if method is not None:
            return super()._make_request_call_future(method)  # type: ignore[no-any-return]
        return self._event_loop.create_task(self._refuse_unknown())

    async def _refuse_unknown(self) -> None:
        """Take calls of unregistered methods for as long as there are any: gRPC's loop never sees one."""
        while True:
            call = await self._request_call()  # raises once the server is stopped
            answer = cygrpc._handle_rpc("", self._any_method, (), call, self._event_loop, False)
            task = self._event_loop.create_task(cygrpc._schedule_rpc_coro(answer, call, self._event_loop, ""))
            self._refusals.add(task)
            task.add_done_callback(self._refusals.discard)


class _Server(_server.Server):  # type: ignore[misc]
    def __init__(
        self, options: Sequence[tuple[str, object]], interceptors: Sequence[object], refused: RefusedTally
    ) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Core(refused, self._loop, None, (), interceptors, tuple(options), None)


def new_server(
    options: Sequence[tuple[str, object]], interceptors: Sequence[grpc.aio.ServerInterceptor], refused: RefusedTally
) -> grpc.aio.Server:
    """A server without methods; `refused` hears of calls of others. Made within the event loop that it serves on."""
    if all(hasattr(cygrpc.AioServer, name) for name in _NEEDED):
        return _Server(options, interceptors, refused)
    log.warning("grpcio %s ends its server at a method's name that is no UTF-8: update it", grpc.__version__)
    return grpc.aio.server(options=options, interceptors=interceptors)


def register(server: grpc.aio.Server, service: str, methods: Mapping[str, Any]) -> None:
    """Have the server serve the methods of a service by their handlers, before it is started."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_registered_method_handlers(service, methods)
