"""All that is fuzzed, by name: parsers in this process, and real servers that are written to over their sockets.

A server is asked for clips by an honest client all the while, and is the same at the end, with the workers it had.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.fuzz.fuzzing import Target
from tests.fuzz.parsers import PARSERS
from tests.fuzz.wires import FRAMES, http2_stream, http_request, zmtp_stream
from tests.integration.adversary import held_bytes
from tests.integration.serving import PATIENCE_S, Server
from tests.integration.talker import Talker
from tests.integration.test_fuzz import CHUNK, PESTS, is_answered
from tests.integration.ways import new_bind

_ANSWER_TURNS = 8  # between two clips of the honest client
_CONNECTIONS = 32  # of a turn of the HTTP port
_GROWTH_BYTES = 64 << 20
_WARM_TURNS = 40  # before its memory is taken as what it has
_READ_S = 2.0


class ParserTarget:
    """One parser."""

    def __init__(self, name: str) -> None:
        self._parser = PARSERS[name]()

    def turn(self, number: int, rng: random.Random) -> int:
        """See Target."""
        self._parser.take(number, rng)
        return 1

    def close(self) -> int:
        """See Target."""
        return 0


class ServerTarget:
    """One transport of a real server; `write` says so many inputs to a URL and returns how many those were."""

    def __init__(self, transport: str, write: Callable[[Server, str, random.Random], int]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._folder.cleanup)
        options = ("--workers", "1", "--buffer-pool-mib", "8", "--bind", new_bind(transport))
        self._server = self._stack.enter_context(Server(Path(self._folder.name), "/videos", *options))
        self._talker = self._stack.enter_context(Talker(self._server.endpoint))
        self._write = write
        self._workers = self._server.workers()
        self._turns = 0
        self._warm_bytes = 0

    def turn(self, number: int, rng: random.Random) -> int:
        """See Target."""
        wrote = self._write(self._server, self._server.endpoint, rng)
        self._turns += 1
        if self._turns % _ANSWER_TURNS == 0:
            is_answered(self._talker, number)
        if self._turns == _WARM_TURNS:
            self._warm_bytes = held_bytes(self._server)
        return wrote

    def close(self) -> int:
        """See Target."""
        with self._stack:
            is_answered(self._talker, 1)
            assert self._server.process.poll() is None, "the server has ended"
            log = self._server.log()
            assert "Traceback" not in log, log[log.index("Traceback") :][:3000]
            assert all(line.isprintable() for line in log.split("\n")), "a line of the log is not printable"
            if self._warm_bytes:
                grew = held_bytes(self._server) - self._warm_bytes
                assert grew <= _GROWTH_BYTES, f"its processes hold {grew} bytes more than after {_WARM_TURNS} turns"
            values = self._server.metrics()
            names = ("framefeed_server_worker_restarts_total", "framefeed_server_gateway_restarts_total")
            return int(sum(values.get(name, 0) for name in names)) + (self._server.workers() != self._workers)


class PestTarget(ServerTarget):
    """Whole messages over a transport, each of which is answered."""

    def __init__(self, transport: str) -> None:
        super().__init__(transport, self._pester)
        self._pest: Any = None
        self._transport = transport

    def _pester(self, _: Server, url: str, rng: random.Random) -> int:
        if self._pest is None:
            self._pest = PESTS[self._transport](url, rng)
            self._stack.callback(self._pest.close)
        self._pest.rng = rng
        self._pest.send()
        self._pest.settle()
        return CHUNK


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].rpartition(":")
    return host, int(port)


def write_stream(stream: Callable[[random.Random], bytes], _: Server, url: str, rng: random.Random) -> int:
    """One connection that says its frames, and reads what comes for a moment at most."""
    with socket.create_connection(_address(url), PATIENCE_S) as peer, contextlib.suppress(OSError):
        peer.settimeout(_READ_S)
        peer.sendall(stream(rng))
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 16):
            pass
    return FRAMES


def write_http(server: Server, _: str, rng: random.Random) -> int:
    """Some connections at once to the HTTP port, each with a request; those that are over are answered or cut."""
    host, port = _address(server.url)
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as answers:
        for number in range(_CONNECTIONS):
            source = f"127.{1 + number}.{rng.randrange(256)}.{1 + rng.randrange(254)}"  # so that ports do not run out
            peer = stack.enter_context(socket.create_connection((host, port), PATIENCE_S, (source, 0)))
            with contextlib.suppress(OSError):
                peer.sendall(http_request(rng))
                peer.shutdown(socket.SHUT_WR)
                answers.register(peer, selectors.EVENT_READ)
        while answers.get_map():
            ready = answers.select(PATIENCE_S)
            assert ready, "a request was neither answered nor cut off"
            for key, _ in ready:
                peer = key.fileobj
                assert isinstance(peer, socket.socket)
                with contextlib.suppress(OSError):
                    if peer.recv(1 << 16):
                        continue
                answers.unregister(peer)
    return _CONNECTIONS


SERVERS: dict[str, Callable[[], Target]] = {
    "ZMTP frames": partial(ServerTarget, "tcp", partial(write_stream, zmtp_stream)),
    "HTTP/2 frames": partial(ServerTarget, "grpc", partial(write_stream, http2_stream)),
    "HTTP requests": partial(ServerTarget, "tcp", write_http),
    "shm socket": partial(PestTarget, "shm"),
    "tcp socket": partial(PestTarget, "tcp"),
    "grpc socket": partial(PestTarget, "grpc"),
}
TARGETS: dict[str, Callable[[], Target]] = {**SERVERS, **{name: partial(ParserTarget, name) for name in PARSERS}}
