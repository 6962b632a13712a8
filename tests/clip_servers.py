"""Small real decode servers for client tests: a ROUTER in a thread or process whose pixels are a hash of the request.

They know the wire and nothing of video: any two answer a request with the same bytes, so "the same batches whatever
fails" is an equality. A Manner says how one misbehaves.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zmq
from msgspec.msgpack import encode

from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box
from framefeed.request import ClipRequest
from framefeed.wire import (
    CancelCall,
    ClipReply,
    DecodeCall,
    DescribeCall,
    ErrorReply,
    Reply,
    ServerReply,
    map_of_request,
    pack_reply,
    request_from_map,
    seal,
    unpack_call,
)


def pixels_of(request: ClipRequest) -> npt.NDArray[np.uint8]:
    """The bytes that every one of these servers returns for a request."""
    as_received = request_from_map(map_of_request(request))  # whole seconds are spelled as floats there
    digest = hashlib.sha256(repr(as_received).encode()).digest()
    return np.resize(np.frombuffer(digest, np.uint8), request.shape)


def info_of(request: ClipRequest) -> ClipInfo:
    """What goes with them."""
    return ClipInfo(
        pts_s=tuple(request.start_s + 0.01 * i for i in range(request.sampling.frames)),
        box=Box(x_px=0, y_px=0, width_px=request.width_px, height_px=request.height_px),
        flipped=request.flipped,
        colour=Colour(),
        read_bytes=1000,
        fed_packets=4,
        stage_s={"queue": 0.0, "read": 0.0, "decode": 0.0, "scale": 0.0},
    )


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a server behaves.

    After `silent_after` decode calls it answers nothing more; after `draining_after` it is leaving; every
    `busy_every`-th call is refused; `copies` of each reply go out; `refuse` maps a video to the code of the error it
    gets; `held` replies are kept back and sent later, in reverse; every `misshaped_every`-th clip has `misshaped_bytes`
    more than it should, or one less; with `other_pixels` its clips are another data set's; an `old` one spells its
    replies, all refusals, as version 1 of the contract did. `siblings` are the other fronts of its box, as it names
    them.
    """

    fingerprint: str = "fake-1"
    dataset: str = "data-1"
    max_clip_bytes: int = 0
    other_pixels: bool = False
    silent_after: int | None = None
    busy_every: int | None = None
    copies: int = 1
    refuse: tuple[tuple[str, str], ...] = ()
    held: int = 0
    misshaped_every: int | None = None
    misshaped_bytes: int = -1
    draining_after: int | None = None
    workers: int = 2
    old: bool = False
    instance: str = ""
    siblings: tuple[str, ...] = ()


class ClipServer:
    """A server in a thread of this process. `port` 0 takes a free one; stop() drops its connections, as dying does."""

    def __init__(self, manner: Manner | None = None, *, port: int = 0) -> None:
        self.manner = manner or Manner()
        self.decode_calls = 0
        self.changed = threading.Condition()
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.url: str = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port = int(self.url.rpartition(":")[2])
        self._held: deque[list[bytes]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.serve, name="clip-server", daemon=True)

    def __enter__(self) -> ClipServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Die: what was asked is not answered. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def wait_for_calls(self, calls: int, *, within_s: float = 20) -> None:
        """Wait until so many decode calls came."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.decode_calls >= calls, within_s), self.decode_calls

    def serve(self) -> None:
        """Answer until stop()."""
        while not self._stopping.is_set():
            if self._router.poll(20):
                client, header, *_ = self._router.recv_multipart()
                self._answer(client, header)
        self._router.close(0)
        self._context.destroy(0)

    def _answer(self, client: bytes, header: bytes) -> None:
        call = unpack_call(header)
        manner = self.manner
        if manner.old:
            refusal = {"kind": "error", "attempt": 0, "server": "old", "code": "bad_request", "message": "no map"}
            self._put([client, seal(encode({"v": 1, **refusal}))])
            return
        if isinstance(call, DecodeCall):
            with self.changed:
                self.decode_calls += 1
                self.changed.notify_all()
        if manner.silent_after is not None and self.decode_calls > manner.silent_after:
            return
        draining = manner.draining_after is not None and self.decode_calls > manner.draining_after
        if isinstance(call, DescribeCall):
            state = "draining" if draining else "ready"
            self._send(client, self._who(call.attempt, state))
            return
        if isinstance(call, CancelCall):  # too late: what is held back is a clip already
            while self._held:
                self._put(self._held.pop())
            return
        code = dict(manner.refuse).get(call.request.video)
        if draining:
            code = "draining"
        elif manner.busy_every and self.decode_calls % manner.busy_every == 0:
            code = "busy"
        if code is not None:
            message = f"no clip of {call.request.video}"
            self._send(client, ErrorReply(attempt=call.attempt, server="fake", code=code, message=message))
            return
        pixels = pixels_of(call.request).tobytes()
        if manner.other_pixels:
            pixels = bytes(255 - byte for byte in pixels)
        if manner.misshaped_every and self.decode_calls % manner.misshaped_every == 0:
            pixels = (pixels + bytes(manner.misshaped_bytes)) if manner.misshaped_bytes > 0 else pixels[:-1]
        reply = ClipReply(attempt=call.attempt, server="fake", info=info_of(call.request))
        for _ in range(manner.copies):
            self._send(client, reply, pixels)

    def _who(self, attempt: int, state: str) -> ServerReply:
        return ServerReply(
            attempt=attempt,
            server=self.url,
            instance=self.manner.instance,
            siblings=self.manner.siblings,
            fingerprint=self.manner.fingerprint,
            dataset=self.manner.dataset,
            max_clip_bytes=self.manner.max_clip_bytes,
            videos=3,
            workers=self.manner.workers,
            state=state,
        )

    def _send(self, client: bytes, reply: Reply, *pixels: bytes) -> None:
        self._held.append([client, pack_reply(reply), *pixels])
        if isinstance(reply, ServerReply):
            self._put(self._held.pop())
        while len(self._held) > self.manner.held:
            self._put(self._held.pop() if self.manner.held else self._held.popleft())

    def _put(self, parts: list[bytes]) -> None:
        with contextlib.suppress(zmq.ZMQError):  # the client is gone
            self._router.send_multipart(parts)


class ServerProcess:
    """A server in a process of its own, to be killed or stopped by signal. Blocks until it listens."""

    def __init__(self, *, port: int = 0) -> None:
        root = Path(__file__).parents[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.clip_servers", str(port)], cwd=root, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


if __name__ == "__main__":
    server = ClipServer(port=int(sys.argv[1]))
    print(server.url, flush=True)
    server.serve()
