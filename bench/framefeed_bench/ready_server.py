"""`framefeed serve` with workers whose clips are ready; all else of it is the product's."""

from __future__ import annotations

import logging

import tyro

from bench.ready_worker import WORKER
from decode_server.service.serve import Serve, run_server

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    run_server(tyro.cli(Serve), worker_command=WORKER)
