"""The process of one front of a box: is told what it is to be, pins itself, and serves as any server does.

`python -m decode_server.service.front_process FD`, with the box at the other end of the socket FD. It ends with the
box, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from collections.abc import Sequence

from decode_server.service.box_messages import (
    MAX_MESSAGE_BYTES,
    Failed,
    FromFront,
    FrontSetup,
    Listening,
    Ready,
    SiblingUrls,
    Turned,
    pack,
    unpack_to_front,
)
from decode_server.service.server import run_front
from framefeed.cli import interrupts
from framefeed.cli.log_lines import log_to_stderr
from framefeed.cli.parent_death import end_with_parent
from framefeed.cli.standard_streams import bound_stdout
from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput, FramefeedError
from framefeed.server_entry import ServerEntry

_SIBLINGS_S = 60.0  # until each front of the box listens


class Channel:
    """The front's end of what it and its box say to each other. See BoxLink."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.settimeout(_SIBLINGS_S)
        self._beats = channel.dup()
        self._beats.setblocking(False)

    def setup(self) -> FrontSetup:
        """What the front is to be. Blocks for at most a minute; raises OSError or ValueError if it is not told."""
        datagram = self._channel.recv(MAX_MESSAGE_BYTES)
        if not datagram:
            raise SystemExit(0)  # the box is gone
        message = unpack_to_front(datagram)
        if not isinstance(message, FrontSetup):
            raise ValueError(f"the box said {type(message).__name__}, wanted FrontSetup")
        return message

    def listening(self, urls: Sequence[str], metrics_port: int, stops: StopSignals) -> Sequence[Sequence[str]]:
        """See BoxLink."""
        self._say(Listening(urls=tuple(urls), metrics_port=metrics_port))
        readable, _, _ = select.select([self._channel.fileno(), stops.fileno()], [], [], _SIBLINGS_S)
        if not readable:
            raise FramefeedError(f"the other fronts of this box did not listen within {_SIBLINGS_S:g} s")
        if self._channel.fileno() not in readable:
            return ()
        message = unpack_to_front(self._channel.recv(MAX_MESSAGE_BYTES))
        assert isinstance(message, SiblingUrls), message
        return message.fronts

    def ready(self, entry: ServerEntry) -> None:
        """See BoxLink."""
        self._say(Ready(entry=entry))

    def turned(self, at_s: float) -> None:
        """See BoxLink."""
        with contextlib.suppress(OSError):  # the box is stopped, or gone
            self._beats.send(pack(Turned(at_s=at_s)))

    def close(self) -> None:
        """Of what is its own; the socket is whoever's who gave it."""
        self._beats.close()

    def failed(self, error: FramefeedError) -> None:
        """Say why this front ends."""
        self._say(Failed(reason=str(error), bad_input=isinstance(error, BadInput)))

    def _say(self, message: FromFront) -> None:
        with contextlib.suppress(OSError):  # the box is gone, and this process is about to be
            self._channel.send(pack(message))


def main(fd: int) -> int:
    """Serve. Returns the exit code: 0 after a drain, 1 failed, 2 bad input."""
    interrupts.let_in()
    with socket.socket(fileno=fd) as ours, contextlib.closing(Channel(ours)) as channel:
        setup = channel.setup()
        end_with_parent(setup.box)
        log_to_stderr(worker=True)
        bound_stdout()
        try:
            os.sched_setaffinity(0, setup.cpus)  # before there is memory to have on another node
            run_front(
                setup.options,
                setup.worker_slots,
                worker_command=setup.worker_command,
                box=channel,
                manifest=setup.manifest,
            )
        except OSError as error:
            channel.failed(FramefeedError(f"the front failed ({error})"))
            raise
        except FramefeedError as error:
            channel.failed(error)
            return 2 if isinstance(error, BadInput) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
