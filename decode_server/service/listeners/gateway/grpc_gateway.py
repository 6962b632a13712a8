"""The process that runs gRPC for one grpc:// or grpcs:// address: calls go to the front, what that answers goes out.

framefeed.v1.DecodeService, the standard health service, which follows the server's state, and server reflection.
Whatever a peer does to gRPC's core, it does to this process: the front starts another at the same port. It holds no
file and no secret but its certificate's key and the token, and may open nothing. A reply's pixels are copied once, into
the message that gRPC sends; at most one such message a stream is on its way, and its buffer is kept until it is
written, so all that readers leave unread is bounded by the buffer pool.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import mmap
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from decode_server.service.listeners.gateway.front_channel import FrontChannel
from decode_server.service.listeners.gateway.gateway_messages import (
    Arrived,
    ClientCall,
    Connections,
    Cut,
    Delivered,
    FromFront,
    GrpcSetup,
    Left,
    Reply,
    SecretsPart,
    Serving,
    Stop,
    Up,
)
from decode_server.service.listeners.gateway.gateway_start import begin_gateway, first_words
from decode_server.service.listeners.gateway.grpc_auth import AuthInterceptor, HandshakeWatch, tls_credentials
from decode_server.service.listeners.gateway.grpc_resets import UnusedStreams
from decode_server.service.listeners.gateway.grpc_secrets import HeldSecrets
from decode_server.service.listeners.gateway.grpc_server import new_server, register
from decode_server.service.listeners.gateway.grpc_streams import CALLS_PER_STREAM, Stream, Streams
from decode_server.service.listeners.gateway.memory_guard import LOOK_S, MemoryGuard, Work
from decode_server.service.listeners.gateway.memory_watch import MemoryWatch, data_bytes, reuse_freed_memory
from decode_server.service.listeners.gateway.refused_tally import RefusedTally
from decode_server.service.private_memory import keep_memory_private
from decode_server.service.workers.sandbox import Sandbox, enter_sandbox, leave_fewer_calls
from framefeed.cli.parent_death import end_with_parent
from framefeed.errors import BadRequest, FramefeedError
from framefeed.grpc_pixels import with_pixels
from framefeed.proto_wire import header_of_call, header_of_no_call, proto_of_reply
from framefeed.show_value import one_line
from framefeed.v1 import decode_pb2
from framefeed.wire import MAX_HEADER_BYTES, CancelCall, peek, unpack_call

log = logging.getLogger("framefeed.gateway")

# gRPC's core writes lines of its own, as many as a peer likes and with bytes that it chose, terminal escapes too.
# Read when the first server is made; whoever looks for a fault sets it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Its Python adds a traceback for each name or value that is no UTF-8, of as many as a peer sends.
logging.getLogger("grpc._cython.cygrpc").addFilter(lambda line: not str(line.msg).startswith("Invalid encoding"))
SERVICE = decode_pb2.DESCRIPTOR.services_by_name["DecodeService"].full_name
_CALLS = ("accept", "accept4")  # what a worker may not do, and gRPC has to
_START_CALLS = (*_CALLS, "socket", "socketpair", "bind", "listen")
_READABLE = (Path("/dev/urandom"),)  # by which it seeds itself
_LOOK_S = 0.1  # how soon it is seen that gRPC's server has ended
_END_S = 0.5  # for gRPC to end calls that were cut off
_CALLS_PER_CONNECTION = 32
_OPTIONS = (
    ("grpc.so_reuseport", 1),  # with the front's socket, which holds the port
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


class GrpcGateway:
    """One server of gRPC's and the socket to the front, on one event loop. Made within it."""

    def __init__(self, channel: socket.socket, setup: GrpcSetup, held: HeldSecrets, *, guard: MemoryGuard) -> None:
        self._setup, self._held, self._guard = setup, held, guard
        self._front = FrontChannel(channel, self._take)
        self._streams = Streams()
        self._refused = RefusedTally(begun=partial(asyncio.get_running_loop().call_soon, self._tell_refused))
        self._pool = memoryview(mmap.mmap(setup.buffer_pool, 0, prot=mmap.PROT_READ))
        self._sending_bytes = 0
        self._unused = UnusedStreams()
        self._ready, self._state_changed = setup.ready, asyncio.Event()
        self._stop: Stop | None = None
        self._stopping = asyncio.Event()

    async def serve(self, sandbox: Sandbox) -> None:
        """Serve until the front says to stop, or ends; `sandbox` is the one of the start."""
        asyncio.get_running_loop().set_exception_handler(_note)
        watch = HandshakeWatch(self._refused) if self._setup.secure else None
        interceptor = AuthInterceptor(self._held, watch, self._refused)
        most = ("grpc.max_allowed_incoming_connections", self._setup.connections)  # who connects beyond that waits
        server = new_server((*_OPTIONS, most), (interceptor,), self._refused)
        methods = {"Decode": grpc.stream_stream_rpc_method_handler(self._decode)}  # messages pass as bytes
        register(server, SERVICE, methods)
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        if watch is None:
            server.add_insecure_port(self._setup.address)
        else:
            server.add_secure_port(self._setup.address, tls_credentials(self._held, watch))
        await server.start()
        sandbox = leave_fewer_calls(sandbox, allowed_calls=_CALLS)
        log.debug("sandbox: %s", sandbox)
        tasks = [asyncio.create_task(self._follow(servicer)), asyncio.create_task(self._look())]
        if watch is not None:
            tasks.append(asyncio.create_task(watch.run()))
        self._front.say(Up(sandbox))
        await self._until_over(server)
        await self._drain(server)
        for task in tasks:
            task.cancel()

    def _take(self, message: FromFront) -> None:
        """A message of the front."""
        match message:
            case Reply():
                if not self._streams.send(message):
                    self._front.say(Delivered([message.number]))
            case Cut(client):
                self._streams.cut(client)
            case SecretsPart():
                self._held.take(message)
            case Serving(ready):
                self._ready = ready
                self._state_changed.set()
            case Stop():
                self._stop = message
                self._stopping.set()

    async def _until_over(self, server: grpc.aio.Server) -> None:
        """Wait until the front says to stop. If ever a call ends gRPC's own loop, and with it all connections, this
        process ends, and another takes its place.
        """
        while not self._stopping.is_set():
            try:
                why = "" if await server.wait_for_termination(_LOOK_S) else "it ended"  # true if the time is up
            except Exception as error:
                why = one_line(f"{type(error).__name__}: {error}")
            if why:
                self._end(f"a call ended gRPC's server: {why}")

    def _end(self, why: str) -> None:
        """End this process for what a client did to it, for another to take its place."""
        self._refused.refuse("internal", "a client", f"it ended a gateway, another takes its place: {why}")
        self._tell_refused()
        self._front.flush()
        log.error("ends itself: %s", why)
        os._exit(1)

    async def _drain(self, server: grpc.aio.Server) -> None:
        """Write what there is, for at most as long as the front says."""
        assert self._stop is not None
        until_s = time.monotonic() + self._stop.linger_s
        while not self._streams.idle and time.monotonic() < until_s:
            await asyncio.sleep(0.01)
        await asyncio.wait((asyncio.create_task(server.stop(0)),), timeout=_END_S)

    async def _follow(self, servicer: health.aio.HealthServicer) -> None:
        """Tell the health service what the server is."""
        while True:
            self._state_changed.clear()
            answer = health_pb2.HealthCheckResponse
            status = answer.SERVING if self._ready else answer.NOT_SERVING
            for name in ("", SERVICE):
                await servicer.set(name, status)
            await self._state_changed.wait()

    async def _look(self) -> None:
        """Look at memory now and then."""
        while True:
            work = Work(streams=len(self._streams), sending_bytes=self._sending_bytes)
            self._guard.look(work, now_s=time.monotonic(), end=self._end)
            await asyncio.sleep(LOOK_S)

    def _tell_refused(self) -> None:
        for refused in self._refused.take():
            self._front.say(refused)

    async def _decode(self, _: object, context: grpc.aio.ServicerContext) -> None:
        """The calls of one stream, until its client ends it and all are answered, or it is cut off."""
        address, used = _address(context), False
        try:
            used = await self._serve_stream(context)
        finally:
            if not used and self._unused.ended(address, time.monotonic()):
                self._refused.refuse("flood", address, "it opens streams and ends them unused, again and again")

    async def _serve_stream(self, context: grpc.aio.ServicerContext) -> bool:
        """Whether a message came over it."""
        most = self._setup.streams
        if len(self._streams) >= most:
            self._refused.refuse("crowd", context.peer(), f"there are {most} streams")
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the server has {most} streams; try another")
        await context.send_initial_metadata(())  # by which a client sees at once that it is connected
        stream = self._streams.open()
        self._front.say(Arrived(stream.name, _principal(context)))
        self._front.say(Connections(len(self._streams)))
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
            self._front.say(Delivered(self._streams.end(stream)))
            self._front.say(Left(stream.name))
            self._front.say(Connections(len(self._streams)))
        return stream.used

    async def _read(self, stream: Stream, context: grpc.aio.ServicerContext) -> None:
        """Hand its calls to the front; one is not read before the front takes the one before it, and has a credit."""
        while (data := await context.read()) is not grpc.aio.EOF:
            stream.used = True
            header = _header(data)
            if not _is_cancel(header):
                await stream.credits.acquire()
            await self._front.room()
            self._front.say(ClientCall(stream.name, [header]))
        for _ in range(CALLS_PER_STREAM):  # all are back when all calls are answered
            await stream.credits.acquire()

    async def _write(self, stream: Stream, context: grpc.aio.ServicerContext) -> None:
        while True:
            reply = await stream.take()
            stream.sending += 1
            self._sending_bytes += reply.length_bytes
            try:
                is_notice = not reply.length_bytes and peek(reply.header) == ("server", 0)  # it answers no call
                pixels = self._pool[reply.offset : reply.offset + reply.length_bytes] if reply.length_bytes else None
                await context.write(with_pixels(proto_of_reply(reply.header), pixels))
            finally:
                stream.sending -= 1
                self._sending_bytes -= reply.length_bytes
                self._front.say(Delivered([reply.number]))
            if not is_notice:
                stream.credits.release()


def _principal(context: grpc.aio.ServicerContext) -> str:
    """The name in a client's certificate, else the hash of one that has none, else its address without the port."""
    shown = context.auth_context()
    if names := shown.get("x509_common_name"):
        return f"certificate {names[0].decode(errors='replace')}"
    if pems := shown.get("x509_pem_cert"):
        return f"certificate {hashlib.sha256(pems[0]).hexdigest()}"
    return _address(context)


def _address(context: grpc.aio.ServicerContext) -> str:
    """Of a client, without its port."""
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


def _first_words(channel: socket.socket) -> tuple[GrpcSetup, HeldSecrets]:
    """What the front says first: the setup, and then the secrets."""
    setup, *parts = first_words(channel)
    assert isinstance(setup, GrpcSetup)
    held = HeldSecrets()
    while held.now is None:
        for part in parts:
            assert isinstance(part, SecretsPart)
            held.take(part)
        parts = [] if held.now is not None else first_words(channel)
    return setup, held


async def _serve(make: Callable[[], GrpcGateway], sandbox: Sandbox) -> None:
    await make().serve(sandbox)


def main() -> int:
    """The process's entry: its one argument is the inherited descriptor of the socket to the front."""
    channel = begin_gateway()
    setup, held = _first_words(channel)
    end_with_parent(setup.parent)
    reuse_freed_memory()
    guard = MemoryGuard(MemoryWatch())
    limit_bytes = data_bytes() + setup.memory_bytes
    keep_memory_private(private=setup.secrets)
    port = int(setup.address.rpartition(":")[2])
    sandbox = enter_sandbox(
        _READABLE, memory_bytes=limit_bytes, allowed_calls=_START_CALLS, bind_ports=(0, port)
    )  # 0: gRPC tries whether there is IPv6
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    runner.run(_serve(partial(GrpcGateway, channel, setup, held, guard=guard), sandbox))
    os._exit(0)  # gRPC's threads are nothing to wait for, and to close the loop the sandbox lacks a call


if __name__ == "__main__":
    raise SystemExit(main())
