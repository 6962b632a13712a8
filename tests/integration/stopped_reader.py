"""A client over shm:// that stops itself with a clip's header read and its pixels not; then goes on and tells.

Arguments: address, seed of its first clip. Each line on stdout is "stops", or at the end how many clips of the video
`pattern` it accepted, how many of them were wrong, and how often its connection was lost.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

from framefeed.wire import ClipReply, unpack_reply
from tests.integration.fake_worker import pattern_of
from tests.integration.serving import request, wait_until
from tests.integration.talker import Talker
from trainer_client.transports.transport import Kind

ASKED = 32
FRAMES, SIDE_PX = 4, 224


def main(url: str, seed: int) -> None:
    """Ask, stop, go on."""
    wanted = {seed + i: request("pattern", seed=seed + i, frames=FRAMES, side_px=SIDE_PX) for i in range(ASKED)}
    accepted, wrong, into = 0, 0, np.zeros(FRAMES * SIDE_PX * SIDE_PX * 3, np.uint8)
    with Talker(url) as talker:

        def read(*, stops: bool) -> bool:
            """One clip, if there is one."""
            nonlocal accepted, wrong
            header = talker.wire.header(url)
            if header is None:
                talker.turn(0.1)
                return False
            reply = unpack_reply(header)
            assert isinstance(reply, ClipReply), reply
            if stops:
                print("stops", flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
            if talker.wire.pixels(url, into):
                accepted += 1
                wrong += not np.array_equal(into, pattern_of(wanted[reply.attempt]))
            return True

        for attempt, clip in wanted.items():
            talker.ask(clip, attempt=attempt)
        wait_until("a clip lies ready", lambda: read(stops=True))
        while read(stops=False):
            pass
        lost = talker.seen.count(Kind.LOST)
        if lost:
            talker.await_kind(Kind.CONNECTED)
        talker.ask(wanted[seed], attempt=seed)
        wait_until("the same clip again", lambda: read(stops=False))
        print(accepted, wrong, lost, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
