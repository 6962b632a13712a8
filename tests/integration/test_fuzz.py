"""Fronts under messages that no client would send: nothing ends, nothing grows, and who asks well beside is answered.

A message in is a reply out, whatever it says, so that is counted too. FUZZ_SEED repeats a run; the seed is printed.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import zmq

from framefeed.proto_wire import proto_of_call
from framefeed.shm import MAX_DATAGRAM_BYTES, pack_back, socket_address
from framefeed.shm import pack_call as shm_call
from framefeed.shm import unpack_reply as unpack_datagram
from framefeed.v1 import decode_pb2 as pb
from framefeed.wire import ClipReply, unpack_reply
from tests.integration.fake_worker import pattern_of
from tests.integration.mangle import CANCEL, odd_header, odd_parts, odd_proto, odd_stream
from tests.integration.serving import PATIENCE_S, Server, request
from tests.integration.talker import Talker
from tests.integration.ways import new_bind

FEW, MANY = 1_500, {"tcp": 200_000, "shm": 200_000, "grpc": 60_000}  # make fuzz sends a million to each
CHUNK = 250
GROWTH_BYTES = 24 << 20  # that the server may have taken at the end, beyond what it had after a twentieth
RAW_SHARE = 100  # so many messages to one connection that writes noise
ZMTP_GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + bytes(48)
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


def seed_of_run() -> int:
    """The seed that is given, or one of chance; it is printed."""
    seed = int(os.environ.get("FUZZ_SEED") or secrets.randbits(32))
    print(f"FUZZ_SEED={seed}")
    return seed


@pytest.fixture
def rng() -> random.Random:
    return random.Random(seed_of_run())


class Pest:
    """One front's malformed messages; `send` returns how many were sent, `settle` waits for a reply to each."""

    def __init__(self, url: str, rng: random.Random) -> None:
        self.url, self.rng = url, rng

    def send(self) -> None: ...

    def settle(self) -> None: ...

    def close(self) -> None: ...


class ZmqPest(Pest):
    def __init__(self, url: str, rng: random.Random) -> None:
        super().__init__(url, rng)
        self.context = zmq.Context()
        self.dealer = self.context.socket(zmq.DEALER)
        self.dealer.setsockopt(zmq.LINGER, 0)
        self.dealer.connect(url)

    def send(self) -> None:
        for _ in range(CHUNK):
            self.dealer.send_multipart(odd_parts(self.rng))
            self.dealer.send(CANCEL)

    def settle(self) -> None:
        for _ in range(CHUNK):
            assert self.dealer.poll(int(PATIENCE_S * 1000)), "a message had no reply"
            unpack_reply(self.dealer.recv_multipart()[0])
        assert not self.dealer.poll(0), "a message had two replies"

    def close(self) -> None:
        self.dealer.close()
        self.context.term()


class ShmPest(Pest):
    """Headers as calls, and at times a datagram that is none, for which it is cut off. Some calls are good: it gives
    their clips back, for whoever holds them too long is cut off too.
    """

    def __init__(self, url: str, rng: random.Random) -> None:
        super().__init__(url, rng)
        self.open()

    def open(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(socket_address(self.url))
        hello, descriptors, _, _ = socket.recv_fds(self.socket, MAX_DATAGRAM_BYTES, 4)
        assert hello, "it was turned away"
        for descriptor in descriptors:
            os.close(descriptor)

    def send(self) -> None:
        self.cut = False
        for _ in range(CHUNK // 25):
            for _ in range(25):
                self.socket.send(shm_call(odd_header(self.rng)))
                self.socket.send(shm_call(CANCEL))
            replies = [self.socket.recv(MAX_DATAGRAM_BYTES) for _ in range(25)]
            assert all(replies), "it was cut off for a call"
            leases = [lease.number for _, lease in map(unpack_datagram, replies) if lease is not None]
            if leases:
                self.socket.send(pack_back(leases))
        if self.rng.random() < 0.3:
            self.socket.send(b"B" + self.rng.randbytes(self.rng.randrange(1, 60)))
            self.cut = True

    def settle(self) -> None:
        if self.cut:
            self.close()
            self.open()

    def close(self) -> None:
        self.socket.close()


class GrpcPest(Pest):
    def __init__(self, url: str, rng: random.Random) -> None:
        super().__init__(url, rng)
        self.channel = grpc.insecure_channel(url.removeprefix("grpc://"))
        self.decode = self.channel.stream_stream("/framefeed.v1.DecodeService/Decode")

    def send(self) -> None:
        messages = [message for _ in range(CHUNK) for message in (odd_proto(self.rng), proto_of_call(CANCEL))]
        self.replies: Any = self.decode(iter(messages), timeout=10 * PATIENCE_S)

    def settle(self) -> None:
        seen = [pb.Reply.FromString(data) for data in self.replies]
        assert len(seen) == CHUNK
        assert all(reply.WhichOneof("outcome") for reply in seen)

    def close(self) -> None:
        self.channel.close()


PESTS: dict[str, Callable[[str, random.Random], Pest]] = {"tcp": ZmqPest, "shm": ShmPest, "grpc": GrpcPest}
GREETINGS = {"tcp": ZMTP_GREETING, "grpc": HTTP2_GREETING}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    binds = [word for transport in PESTS for word in ("--bind", new_bind(transport))]
    with Server(tmp_path, "/videos", "--workers", "1", "--buffer-pool-mib", "8", *binds) as server:
        yield server


def own_bytes(server: Server) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def write_noise(url: str, rng: random.Random, greeting: bytes) -> None:
    """Connect to a port and write what no peer would."""
    host, port = url.partition("://")[2].rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE_S) as peer:
        try:
            peer.sendall(odd_stream(rng, greeting))
            if rng.random() < 0.5:
                peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was cut off


def is_answered(neighbour: Talker, attempt: int) -> None:
    wanted = request("pattern", seed=attempt)
    reply, pixels = neighbour.decode(wanted, attempt=attempt)
    assert isinstance(reply, ClipReply), reply
    assert (reply.attempt, pixels) == (attempt, pattern_of(wanted).tobytes())


def pester(server: Server, transport: str, rng: random.Random, *, messages: int) -> None:
    (url,) = (url for url in server.endpoints if url.startswith(transport))
    pest = PESTS[transport](url, rng)
    workers, warm_bytes, held = server.workers(), 0, 0
    rounds = messages // CHUNK
    with Talker(url) as neighbour:
        try:
            for number in range(rounds):
                pest.send()
                is_answered(neighbour, number)
                pest.settle()
                if transport in GREETINGS:
                    for _ in range(CHUNK // RAW_SHARE):
                        write_noise(url, rng, GREETINGS[transport])
                if number == max(rounds // 20, 1):
                    warm_bytes, held = own_bytes(server), descriptors(server)
        finally:
            pest.close()
        is_answered(neighbour, rounds)
        values = server.metrics()
    assert server.process.poll() is None, server.log()
    assert server.workers() == workers
    assert values["framefeed_server_worker_restarts_total"] == 0
    assert values["framefeed_server_requests_received_total"] >= messages
    assert own_bytes(server) - warm_bytes < GROWTH_BYTES
    assert descriptors(server) < held + 50


@pytest.mark.parametrize("transport", PESTS)
def test_some_malformed_messages(server: Server, transport: str, rng: random.Random) -> None:
    pester(server, transport, rng, messages=FEW)


@pytest.mark.slow
@pytest.mark.parametrize("transport", PESTS)
def test_many_malformed_messages(server: Server, transport: str, rng: random.Random) -> None:
    pester(server, transport, rng, messages=MANY[transport])
