"""What a worker whose decoder was taken over may say to its front: refused in a line, or taken in and counted."""

from __future__ import annotations

import math
import random

import msgspec

from decode_server.service.metrics import Capacity, Metrics
from decode_server.service.workers.read_depth import ReadDepth, most_spare
from decode_server.service.workers.sandbox import Sandbox
from decode_server.service.workers.worker_messages import (
    Done,
    Effort,
    Hello,
    NoStart,
    Stuck,
    pack_message,
    unpack_message,
)
from framefeed.wire import Load, add_load, attempt_of_unsealed, pack_unsealed
from tests.fuzz.inputs import MSGPACK, Strange
from tests.fuzz.replies import LINE_CHARS, says_one_line
from tests.unit.contract.test_wire import REPLIES

_THREADS = 2
_EFFORT = Effort(0.1, 5.0, {"stale": 1, "retry": 2}, [("read", 0.01), ("open", 0.002)], (3, 1))
_STAGE_S = {"read": 0.01, "decode": 0.02, "scale": 0.01}
_SAID = [
    *[Done(1, "clip", pack_unsealed(reply), "h264", 9, _STAGE_S, _EFFORT) for reply in REPLIES],
    Done(2, "permanent", pack_unsealed(REPLIES[0]), "", 0, {}, _EFFORT),
    Hello("av 1", 3, "v1-2", Sandbox(in_force=("seccomp",), missing=("Landlock (too old)",))),
    NoStart("the root cannot be read"),
    Stuck(3, "a read of clip.mp4 has not returned for 5 s", True),
]


class WorkerMessages:
    """The front's end of a worker's channel, as far as it knows no processes."""

    def __init__(self) -> None:
        self._strange = Strange([msgspec.msgpack.decode(pack_message(message)) for message in _SAID], MSGPACK)
        self._metrics = Metrics(Capacity(queue=1, workers=1, buffer_pool_bytes=1, threads={0: _THREADS}))
        self._depth = ReadDepth(threads=_THREADS)

    def take(self, number: int, rng: random.Random) -> None:
        """Raises what the front must not."""
        try:
            message = unpack_message(self._strange.bytes_at(number, rng))
        except ValueError as error:
            says_one_line(error, LINE_CHARS)
            return
        if isinstance(message, Done):
            self._take_in(message)

    def _take_in(self, done: Done) -> None:
        """As WorkerPool, Front and Replies do with the end of a job."""
        self._metrics.worked(done.effort, socket=0)
        self._metrics.decoded(socket=0, codec=done.codec, read_bytes=done.read_bytes, stage_s=done.stage_s)
        self._depth.took(sum(took_s for _, took_s in done.effort.reads_s), done.stage_s.get("decode", 0.0))
        assert 1 <= self._depth.spare <= most_spare(_THREADS)
        assert math.isfinite(done.effort.busy_s + done.effort.finished_s)
        attempt = attempt_of_unsealed(done.reply)
        assert attempt is None or attempt >= 0
        assert add_load(done.reply, Load(queued=0, credits=1, front_s=0.0, front_busy=0.0))
