"""As many clients as one large run has, at one server: all are held, all are served, and who watches it is too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from framefeed.proto_wire import header_of_reply, proto_of_call
from framefeed.shm import HELLO_BYTES, MAX_DATAGRAM_BYTES, pack_back, socket_address, unpack_hello, unpack_reply
from framefeed.shm import pack_call as pack_datagram
from framefeed.wire import ClipReply, DecodeCall, pack_call
from framefeed.wire import unpack_reply as unpack_header
from tests.chaos.observer import rss_bytes
from tests.integration.serving import PATIENCE_S, Server, request

pytestmark = pytest.mark.slow

STREAMS, STREAMS_A_CHANNEL = 1000, 25
AT_ONCE = 250  # of the 512 requests that may wait for all who come from one address
SHM_CLIENTS = 512
LOW_LIMIT = ("bash", "-c", 'ulimit -Sn 300; exec "$@"', "bash")


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Enough of them for the clients, which all live here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def call(seed: int) -> bytes:
    return pack_call(DecodeCall(attempt=seed, deadline_s=3 * PATIENCE_S, request=request(seed=seed, frames=4)))


def test_a_thousand_grpc_streams_and_a_health_check(tmp_path: Path) -> None:
    with Server(tmp_path, "/videos", "--bind", "grpc://127.0.0.1:0", "--workers", "1") as server:
        before_bytes = rss_bytes(server.pid)
        held_bytes = asyncio.run(_hold_streams(server))
        assert held_bytes - before_bytes < STREAMS * 100_000, "an idle stream costs more than 100 kB"


async def _hold_streams(server: Server) -> int:
    """Open all streams, ask the health service beside them, then for a clip over each; the server's memory."""
    address = server.endpoint.removeprefix("grpc://")
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(STREAMS // STREAMS_A_CHANNEL)]
    streams = [
        channel.stream_stream("/framefeed.v1.DecodeService/Decode")()
        for channel in channels
        for _ in range(STREAMS_A_CHANNEL)
    ]
    async with asyncio.timeout(3 * PATIENCE_S):
        await asyncio.gather(*(stream.initial_metadata() for stream in streams))
        async with grpc.aio.insecure_channel(address, options=options) as watcher:
            check = health_pb2_grpc.HealthStub(watcher).Check  # type: ignore[no-untyped-call]
            health = await check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        held_bytes = rss_bytes(server.pid)
        for first in range(0, STREAMS, AT_ONCE):
            asked = list(enumerate(streams))[first : first + AT_ONCE]
            for number, stream in asked:
                await stream.write(proto_of_call(call(number)))
            for number, stream in asked:
                reply = unpack_header(header_of_reply(await stream.read()))
                assert isinstance(reply, ClipReply), reply
                assert reply.attempt == number
    for channel in channels:
        await channel.close()
    return held_bytes


def test_512_clients_over_shared_memory_though_the_limit_began_lower(tmp_path: Path) -> None:
    url = f"shm://@many-{os.getpid()}"
    with (
        Server(tmp_path, "/videos", "--bind", url, "--workers", "1", under=LOW_LIMIT) as server,
        contextlib.ExitStack() as stack,
    ):
        clients = []
        for _ in range(SHM_CLIENTS):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            client.settimeout(PATIENCE_S)
            client.connect(socket_address(server.endpoint))
            hello, (fd,), _, _ = socket.recv_fds(client, HELLO_BYTES, 1)
            assert unpack_hello(hello)
            os.close(fd)
            clients.append(client)
        for number, client in enumerate(clients):
            client.send(pack_datagram(call(number)))
        for number, client in enumerate(clients):
            header, lease = unpack_reply(client.recv(MAX_DATAGRAM_BYTES))
            reply = unpack_header(header)
            assert isinstance(reply, ClipReply), reply
            assert reply.attempt == number
            assert lease is not None
            client.send(pack_back([lease.number]))
        values = server.metrics()
        assert values['framefeed_server_refused_total{reason="crowd"}'] == 0
        assert values['framefeed_server_requests_total{outcome="clip"}'] == SHM_CLIENTS
