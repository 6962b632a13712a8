"""`framefeed serve` with workers whose clips are ready; all else of it is the product's."""

from __future__ import annotations

import logging

import tyro

from decode_server.service.serve import Serve, run_server
from framefeed_bench.ready_worker import WORKER

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    run_server(tyro.cli(Serve), worker_command=WORKER)
