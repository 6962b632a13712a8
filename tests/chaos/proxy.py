"""A TCP proxy that loses, delays, doubles, spoils and cuts what goes through it when told to; otherwise it is a wire.

It acts on whole messages where it can tell them (ZeroMQ), so a fault costs one message and not the framing; of another
protocol it knows bytes, and can cut and delay. One thread owns all sockets; faults are ordered from any thread.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from types import TracebackType

from tests.chaos.schedule import Fault
from tests.chaos.zmtp import Messages, Piece

_TICK_S = 0.01
_WINDOW_S = 1.0
_READ_BYTES = 1 << 16
_FULL_BYTES = 1 << 22  # held for one receiver; its sender is not read beyond it
_TO_SERVER = (Fault.LOSE_REQUEST, Fault.SPOIL_REQUEST)
_TO_CLIENT = (Fault.LOSE_REPLY, Fault.DOUBLE_REPLY, Fault.SPOIL_REPLY, Fault.CUT_MID_REPLY)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


@dataclass(eq=False)
class _End:
    """One socket of a pair: what came from it is cut into messages, what goes to it waits in `out`."""

    sock: socket.socket
    faults: tuple[Fault, ...]  # that may happen to what comes from it
    pair: _Pair
    messages: Messages | None  # None: bytes pass as they come
    out: bytearray = field(default_factory=bytearray)
    connected: bool = True
    ended: bool = False  # it will send no more

    @property
    def other(self) -> _End:
        return self.pair.client if self is self.pair.server else self.pair.server


@dataclass(eq=False)
class _Pair:
    client: _End = field(init=False)
    server: _End = field(init=False)


class Proxy:
    """Listens on `address`, connects to a local port, and runs within `with`. `done` counts the faults that struck."""

    def __init__(self, port: int, *, seed: int, zmtp: bool = True) -> None:
        self.done: Counter[Fault] = Counter()
        self._port = port
        self._rng = random.Random(seed)
        self._zmtp = zmtp
        self._lock = threading.Lock()
        self._armed: dict[Fault, deque[tuple[float, float]]] = {fault: deque() for fault in Fault}  # (lasts, until)
        self._still_until_s = 0.0
        self._pairs: list[_Pair] = []
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def order(self, fault: Fault, *, lasts_s: float = 0.0) -> None:
        """Let a fault of the wire happen: now (CUT, DELAY), or to the next message that it can happen to.

        Without such a message within a second it happens to none: a fault is a moment, and does not lie in wait.
        """
        with self._lock:
            self._armed[fault].append((lasts_s, time.monotonic() + _WINDOW_S))

    def _strikes(self, *faults: Fault) -> tuple[Fault, float] | None:
        """One of these faults that is due, and how long it lasts; it is then no longer due."""
        with self._lock:
            for fault in faults:
                while self._armed[fault]:
                    lasts_s, until_s = self._armed[fault].popleft()
                    if time.monotonic() < until_s:
                        self.done[fault] += 1
                        return fault, lasts_s
        return None

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                while self._strikes(Fault.CUT):
                    for pair in list(self._pairs):
                        self._cut(pair)
                while delay := self._strikes(Fault.DELAY):
                    self._still_until_s = max(self._still_until_s, time.monotonic() + delay[1])
                for key, _ in self._selector.select(_TICK_S):
                    if key.data is None:
                        self._accept()
                    elif key.data.pair in self._pairs:  # not cut in this round
                        self._serve(key.data)
                for pair in self._pairs:
                    self._watch(pair)
        finally:
            for pair in list(self._pairs):
                self._cut(pair)
            self._listener.close()
            self._selector.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket()
        pair = _Pair()
        pair.client = _End(client, _TO_SERVER, pair, Messages() if self._zmtp else None)
        pair.server = _End(server, _TO_CLIENT, pair, Messages() if self._zmtp else None, connected=False)
        for end in (pair.client, pair.server):
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, end)
        with contextlib.suppress(BlockingIOError):
            server.connect(("127.0.0.1", self._port))
        self._pairs.append(pair)

    def _serve(self, end: _End) -> None:
        """Move what can be moved from and to one socket. An error of either cuts both."""
        try:
            if not end.connected:
                refused = end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if refused:
                    raise OSError(refused, "refused")
                end.connected = True
            if end.out:
                with contextlib.suppress(BlockingIOError):
                    del end.out[: end.sock.send(end.out)]
            if self._may_read(end):
                with contextlib.suppress(BlockingIOError):
                    self._take_in(end, end.sock.recv(_READ_BYTES))
        except OSError:
            self._cut(end.pair)

    def _take_in(self, end: _End, data: bytes) -> None:
        if not data:
            end.ended = True
            if end.other.ended or not end.other.out:
                self._cut(end.pair)
            return
        for piece in end.messages.feed(data) if end.messages else (Piece(data, None),):
            struck = self._strikes(*end.faults) if piece.header is not None else None
            end.other.out += self._changed(piece, struck[0] if struck else None)
            if struck and struck[0] is Fault.CUT_MID_REPLY:
                with contextlib.suppress(BlockingIOError):
                    end.other.sock.send(end.other.out)
                raise ConnectionResetError

    def _changed(self, piece: Piece, fault: Fault | None) -> bytes:
        match fault:
            case Fault.LOSE_REQUEST | Fault.LOSE_REPLY:
                return b""
            case Fault.DOUBLE_REPLY:
                return piece.data * 2
            case Fault.CUT_MID_REPLY:
                return piece.data[: len(piece.data) // 2]
            case Fault.SPOIL_REQUEST | Fault.SPOIL_REPLY:
                assert piece.header is not None
                spoiled = bytearray(piece.data)
                spoiled[self._rng.randrange(piece.header.start, piece.header.stop)] ^= self._rng.randrange(1, 256)
                return bytes(spoiled)
        return piece.data

    def _may_read(self, end: _End) -> bool:
        delayed = end is end.pair.server and time.monotonic() < self._still_until_s
        return not (end.ended or delayed or not end.other.connected or len(end.other.out) > _FULL_BYTES)

    def _watch(self, pair: _Pair) -> None:
        """Ask the selector for what each socket can be used for now."""
        for end in (pair.client, pair.server):
            reads = selectors.EVENT_READ if self._may_read(end) else 0
            writes = selectors.EVENT_WRITE if end.out or not end.connected else 0
            known = self._selector.get_map().get(end.sock)
            if (reads | writes) == (known.events if known else 0):
                continue
            if known:
                self._selector.unregister(end.sock)
            if reads | writes:
                self._selector.register(end.sock, reads | writes, end)

    def _cut(self, pair: _Pair) -> None:
        """Reset both connections: neither side is told anything."""
        self._pairs.remove(pair)
        for end in (pair.client, pair.server):
            with contextlib.suppress(KeyError):
                self._selector.unregister(end.sock)
            with contextlib.suppress(OSError):
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.sock.close()
