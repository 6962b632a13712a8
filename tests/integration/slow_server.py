"""`framefeed serve` that is slow at one stage: `read` or `decode` in its workers, `front` in the front's own thread."""

from __future__ import annotations

import logging
import sys
import time

import tyro

from decode_server.service.front import Front
from decode_server.service.serve import Serve, run_server


def slow_front(longer_s: float) -> None:
    """The front's thread works so much longer on every call."""
    receive = Front._receive

    def slowly(front: Front, now_s: float) -> bool:
        received = receive(front, now_s)
        time.sleep(longer_s * received)
        return received

    Front._receive = slowly  # type: ignore[method-assign]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    stage, longer_s = sys.argv.pop(1), sys.argv.pop(1)
    if stage == "front":
        slow_front(float(longer_s))
    worker = ("read", "0") if stage == "front" else (stage, longer_s)
    run_server(tyro.cli(Serve), worker_command=(sys.executable, "-m", "tests.integration.slow_worker", *worker))
