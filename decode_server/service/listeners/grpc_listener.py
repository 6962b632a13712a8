"""grpc:// and grpcs://: framefeed.v1.DecodeService on an event loop in a thread of its own. Knows no clips.

Beside it the standard health service, which follows the server's state, and server reflection. A reply's pixels are
copied once, into the message that gRPC sends; at most one such message a call is on its way, the others wait in the
buffer pool, so a reader that does not read costs its calls' windows and no more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import hashlib
import logging
import os
import resource
import socket
import threading
from dataclasses import replace

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from decode_server.service.lifecycle import Lifecycle, State
from decode_server.service.listeners.endpoint import Endpoint
from decode_server.service.listeners.gateway.grpc_auth import AuthInterceptor, HandshakeWatch, tls_credentials
from decode_server.service.listeners.gateway.grpc_streams import CALLS_PER_STREAM, QueuedReply, Stream, Streams
from decode_server.service.listeners.security import ServerCredentials
from decode_server.service.refusals import Refusals
from framefeed.errors import BadInput, BadRequest, FramefeedError
from framefeed.grpc_pixels import with_pixels
from framefeed.proto_wire import header_of_call, header_of_no_call, proto_of_reply
from framefeed.show_value import one_line
from framefeed.v1 import decode_pb2
from framefeed.wire import MAX_HEADER_BYTES, CancelCall, peek, unpack_call

log = logging.getLogger("framefeed.serve")

# gRPC's core writes lines of its own, as many as a peer likes and with bytes that it chose, terminal escapes too.
# Read when the first server is made; whoever looks for a fault sets it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
SERVICE = decode_pb2.DESCRIPTOR.services_by_name["DecodeService"].full_name
_START_S = 10.0
_STOP_S = 2.0  # for gRPC to end calls that were cut off
_HEALTH_S = 0.1  # how soon the health service knows
_STREAMS = 4096  # of all clients; health checks do not count
_CONNECTIONS = 4096  # and no more than half of the descriptors that this process may have
_CALLS_PER_CONNECTION = 32
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port in use is an error
    ("grpc.max_receive_message_length", MAX_HEADER_BYTES),  # beyond it the call is cut before memory is taken
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16384),
    ("grpc.max_concurrent_streams", _CALLS_PER_CONNECTION),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 50_000),  # a peer silent for that long is cut off, and what it held is freed
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.server_handshake_timeout_ms", 5_000),  # who connects and says nothing holds a descriptor no longer
    ("grpc.max_connection_idle_ms", 60_000),  # nor who says hello and calls nothing
    ("grpc.http2.min_ping_interval_without_data_ms", 500),  # clients may ask as often whether we live
)


class GrpcListener:
    """See Listener. Listens from construction on. Raises BadInput if the address cannot be had."""

    def __init__(
        self, endpoint: Endpoint, *, lifecycle: Lifecycle, credentials: ServerCredentials, refusals: Refusals
    ) -> None:
        self.url = endpoint.url
        self._credentials = credentials
        self._refusals = refusals
        self._endpoint = endpoint
        self._lifecycle = lifecycle
        self._streams = Streams()
        self._bound: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()
        self._linger_s = 0.0
        self._thread = threading.Thread(target=self._run, name="grpc", daemon=True)
        self._thread.start()
        try:
            port = self._bound.result(_START_S)
        except BaseException:
            self.close(linger_s=0)
            raise
        self.url = f"{endpoint.url.rpartition(':')[0]}:{port}"

    def fileno(self) -> int:
        """See Listener."""
        return self._streams.fileno()

    @property
    def pending(self) -> bool:
        """See Listener; also if the thread has ended, which `receive` raises."""
        return self._streams.pending or not self._thread.is_alive()

    @property
    def clients(self) -> int:
        """See Listener."""
        return len(self._streams)

    @property
    def clients_limit(self) -> int:
        """See Listener."""
        return _STREAMS

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """See Listener. Raises FramefeedError if the thread has ended."""
        if not self._thread.is_alive():
            raise FramefeedError(f"{self.url}: the thread that listens has ended")
        return self._streams.receive()

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> QueuedReply | None:
        """See Listener."""
        return self._streams.send(client, header, pixels)

    def flush(self) -> None:
        """See Listener: nothing is gathered."""

    def principal(self, client: bytes) -> str:
        """See Listener: a certificate's name, or else the address; a token is one for all who have it."""
        return self._streams.principal(client)

    def cut(self, client: bytes) -> None:
        """See Listener."""
        self._streams.cut(client)

    def close(self, *, linger_s: float) -> None:
        """See Listener; blocks 2 s longer at most."""
        self._linger_s = linger_s
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed already
                self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(linger_s + 2 * _STOP_S)
        if not self._thread.is_alive():
            self._streams.close()

    # The thread's side.

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._bound.done():
                log.exception("%s: the thread that listens has failed", self.url)
            else:
                self._bound.set_exception(error)

    async def _serve(self) -> None:
        """Serve until close(). A call can end gRPC's own loop, as one whose method's name is no UTF-8 does, and with it
        all connections: another server takes its place, and clients connect and ask again.
        """
        asyncio.get_running_loop().set_exception_handler(_note)
        while not self._closing.is_set():
            try:
                await self._serve_once()
            except BadInput as error:  # its port is not free yet
                if not self._bound.done():
                    raise
                log.warning("%s", error)
                await asyncio.sleep(_HEALTH_S)

    async def _serve_once(self) -> None:
        tls = self._credentials.tls if self._endpoint.scheme == "grpcs" else None
        watch = HandshakeWatch(self._refusals) if tls is not None else None
        auth_interceptor = AuthInterceptor(self._credentials.token, watch, self._refusals)
        server = grpc.aio.server(options=(*_OPTIONS, _connections()), interceptors=(auth_interceptor,))
        server.add_generic_rpc_handlers((self._handlers(),))
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        port = self._bind(server, None if tls is None or watch is None else tls_credentials(tls, watch))
        self._loop = asyncio.get_running_loop()
        await server.start()
        tasks = [asyncio.create_task(self._follow(servicer))]
        if watch is not None:
            tasks.append(asyncio.create_task(watch.run()))
        if not self._bound.done():
            self._endpoint = replace(self._endpoint, url=f"{self._endpoint.url.rpartition(':')[0]}:{port}")
            self._bound.set_result(port)
        why = await self._until_over(server)
        for task in tasks:
            task.cancel()
        if why:
            self._refusals.refuse(
                "internal", "a client", f"its call ended gRPC's server, another takes its place: {why}"
            )
        else:
            await self._flush(self._linger_s)
        with contextlib.suppress(Exception):  # one that has crashed ends so once more
            await server.stop(0)

    async def _until_over(self, server: grpc.aio.Server) -> str:
        """Wait for close(), or for what ended the server, which is returned."""
        while not self._closing.is_set():
            try:
                if not await server.wait_for_termination(_HEALTH_S):  # true if the time is up
                    return "it ended"
            except Exception as error:
                return one_line(f"{type(error).__name__}: {error}")
        return ""

    def _handlers(self) -> grpc.GenericRpcHandler:
        """Messages pass as bytes: proto_wire.py reads and writes them, around the pixels."""
        methods = {"Decode": grpc.stream_stream_rpc_method_handler(self._decode)}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _bind(self, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None) -> int:
        url, address = self._endpoint.url, self._endpoint.url.partition("://")[2]
        family = socket.AF_INET6 if self._endpoint.ipv6 else socket.AF_INET
        try:
            with socket.create_server((self._endpoint.address, int(url.rpartition(":")[2])), family=family):
                pass  # gRPC does not say why an address cannot be had
            if credentials is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, credentials))
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            why = " is in use; choose another with --bind" if in_use else f": {error.strerror}"
            raise BadInput(f"bind: {url}{why}") from None
        except RuntimeError as error:
            raise BadInput(f"bind: {url}: {error}") from None

    async def _follow(self, servicer: health.aio.HealthServicer) -> None:
        """Tell the health service what the server is."""
        while True:
            ready = self._lifecycle.state is State.READY
            status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
            for name in ("", SERVICE):
                await servicer.set(name, status)
            seen = self._lifecycle.state
            while self._lifecycle.state is seen:
                await asyncio.sleep(_HEALTH_S)

    async def _flush(self, linger_s: float) -> None:
        until_s = asyncio.get_running_loop().time() + linger_s
        while not self._streams.idle and asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(0.01)

    async def _decode(self, _: object, context: grpc.aio.ServicerContext) -> None:
        """The calls of one stream, until its client ends it and all are answered, or it is cut off."""
        if len(self._streams) >= _STREAMS:
            self._refusals.refuse("crowd", context.peer(), f"there are {_STREAMS} streams")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the server has {_STREAMS} streams; try another")
        await context.send_initial_metadata(())  # by which a client sees at once that it is connected
        stream = self._streams.open(_principal(context))
        tasks = [
            asyncio.create_task(work)
            for work in (self._write(stream, context), self._read(stream, context), stream.was_cut())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except grpc.aio.BaseError as error:
            log.debug("%s: a stream was cut off (%s)", context.peer(), error)
        finally:
            for task in tasks:
                task.cancel()
            self._streams.end(stream)

    async def _read(self, stream: Stream, context: grpc.aio.ServicerContext) -> None:
        """Hand its calls to the front; one is not read before there is a credit for the one before it."""
        while (data := await context.read()) is not grpc.aio.EOF:
            header = _header(data)
            if _is_cancel(header):
                await self._streams.tell(stream, header)
            else:
                await stream.credits.acquire()
                self._streams.ask(stream, header)
        for _ in range(CALLS_PER_STREAM):  # all are back when all calls are answered
            await stream.credits.acquire()

    async def _write(self, stream: Stream, context: grpc.aio.ServicerContext) -> None:
        while True:
            queued_reply = await stream.take()
            is_notice = peek(queued_reply.header) == ("server", 0)  # it answers no call
            data = with_pixels(proto_of_reply(queued_reply.header), queued_reply.pixels)
            queued_reply.deliver()
            await context.write(data)
            if not is_notice:
                stream.credits.release()


def _principal(context: grpc.aio.ServicerContext) -> str:
    """The name in a client's certificate, else the hash of one that has none, else its address without the port."""
    shown = context.auth_context()
    if names := shown.get("x509_common_name"):
        return f"certificate {names[0].decode(errors='replace')}"
    if pems := shown.get("x509_pem_cert"):
        return f"certificate {hashlib.sha256(pems[0]).hexdigest()}"
    return str(context.peer()).rpartition(":")[0]


def _header(data: bytes) -> bytes:
    """The header of a Call; bytes that are none become one that the front refuses in the same words."""
    try:
        return header_of_call(data)
    except BadRequest as error:
        return header_of_no_call(str(error))


def _is_cancel(header: bytes) -> bool:
    """Whether the front will have no reply to it."""
    try:
        return peek(header)[0] == "cancel" and isinstance(unpack_call(header), CancelCall)
    except FramefeedError:
        return False


def _note(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What ended a task that nobody awaits, as those of a server of gRPC's that has ended: that is told already."""
    error = context.get("exception")
    log.debug("%s", context.get("message"), exc_info=error if isinstance(error, BaseException) else None)


def _connections() -> tuple[str, int]:
    """The option that says how many there may be: who connects beyond that waits, and takes nothing from the others."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _CONNECTIONS if limit == resource.RLIM_INFINITY else min(_CONNECTIONS, limit // 2)
    return "grpc.max_allowed_incoming_connections", most
