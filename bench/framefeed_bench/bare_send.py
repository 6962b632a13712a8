"""What a clip's bytes alone cost each side: by the system's own sockets, and by ZeroMQ with and without CURVE.

No front and no loader can be cheaper over the same transport. One core a side; it knows nothing else of framefeed.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

import zmq

from framefeed.errors import FramefeedError
from framefeed_bench.one_core import on_core, two_cores

Way = Literal["socket", "tcp", "curve"]
_PLACES = 16  # in memory, so that a clip does not come from the cache that it went to
_HEADER = bytes(400)
_UNREAD = 4
_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BareSend:
    """So many clips of so many bytes, one way; picklable."""

    way: Way
    clip_bytes: int
    clips: int

    def cpu_ms(self) -> dict[str, float]:
        """CPU milliseconds a clip of who sends and who receives. Raises FramefeedError if a side fails."""
        spawn = multiprocessing.get_context("spawn")
        keys = zmq.curve_keypair() if self.way == "curve" else (b"", b"")
        ends: list[Connection] = []
        processes = []
        for side, core in zip((_send, _receive), two_cores(), strict=True):
            ours, theirs = spawn.Pipe()
            with on_core(core):
                process = spawn.Process(target=side, args=(self, keys, theirs), daemon=True)
                process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        sender, receiver = ends
        try:
            receiver.send(_heard(sender))
            return {"sender": round(float(_heard(sender)), 3), "receiver": round(float(_heard(receiver)), 3)}
        finally:
            for process in processes:
                process.terminate()
                process.join()


def median_cpu_ms(sends: list[BareSend], rounds: int) -> dict[Way, dict[str, float]]:
    """The median of interleaved rounds of each."""
    found: dict[Way, list[dict[str, float]]] = {send.way: [] for send in sends}
    for _ in range(rounds):
        for send in sends:
            found[send.way].append(send.cpu_ms())
    return {
        way: {side: statistics.median(row[side] for row in rows) for side in ("sender", "receiver")}
        for way, rows in found.items()
    }


def _heard(connection: Connection) -> float:
    """The next number that a side says."""
    try:
        if connection.poll(_LIMIT_S):
            number: float = connection.recv()
            return number
    except (EOFError, OSError):
        pass
    raise FramefeedError("bench: a side that only sends or receives clips failed")


def _send(what: BareSend, keys: tuple[bytes, bytes], parent: Connection) -> None:
    memory = memoryview(mmap.mmap(-1, what.clip_bytes * _PLACES))
    memory[:] = os.urandom(what.clip_bytes) * _PLACES
    clips = [memory[i * what.clip_bytes :][: what.clip_bytes] for i in range(_PLACES)]
    if what.way == "socket":
        with socket.create_server(("127.0.0.1", 0)) as server:
            parent.send(server.getsockname()[1])
            connection = server.accept()[0]
        with connection:
            parent.send(_timed_ms(what.clips, lambda number: connection.sendall(clips[number % _PLACES])))
        return
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.SNDHWM, _UNREAD)
        if what.way == "curve":
            push.setsockopt(zmq.CURVE_SERVER, 1)
            push.setsockopt(zmq.CURVE_SECRETKEY, keys[1])
        parent.send(push.bind_to_random_port("tcp://127.0.0.1"))

        def send(number: int) -> None:
            push.send(_HEADER, zmq.SNDMORE)
            push.send(clips[number % _PLACES], copy=False)

        parent.send(_timed_ms(what.clips, send))


def _receive(what: BareSend, keys: tuple[bytes, bytes], parent: Connection) -> None:
    port = int(_heard(parent))
    memory = memoryview(mmap.mmap(-1, what.clip_bytes * _PLACES))
    memory[:] = bytes(len(memory))
    slots = [memory[i * what.clip_bytes :][: what.clip_bytes] for i in range(_PLACES)]
    if what.way == "socket":
        with socket.create_connection(("127.0.0.1", port)) as connection:
            parent.send(_timed_ms(what.clips, lambda number: _fill(connection, slots[number % _PLACES])))
        return
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.setsockopt(zmq.RCVHWM, _UNREAD)
        if what.way == "curve":
            public, secret = zmq.curve_keypair()
            for option, key in ((zmq.CURVE_SERVERKEY, keys[0]), (zmq.CURVE_PUBLICKEY, public)):
                pull.setsockopt(option, key)
            pull.setsockopt(zmq.CURVE_SECRETKEY, secret)
        pull.connect(f"tcp://127.0.0.1:{port}")

        def receive(number: int) -> None:
            pull.recv()
            pull.recv_into(slots[number % _PLACES])

        parent.send(_timed_ms(what.clips, receive))


def _fill(connection: socket.socket, slot: memoryview) -> None:
    while slot:
        slot = slot[connection.recv_into(slot) :]


def _timed_ms(clips: int, one: Callable[[int], None]) -> float:
    """CPU milliseconds of this process a clip."""
    one(0)
    began_s = time.process_time()
    for number in range(1, clips + 1):
        one(number)
    return 1e3 * (time.process_time() - began_s) / clips
