"""`framefeed serve` with the workers of the module that is named first: everything else is real."""

from __future__ import annotations

import logging
import sys

import tyro

from decode_server.service.serve import Serve, run_server
from framefeed.errors import BadInput, FramefeedError

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    worker = sys.argv.pop(1)
    try:
        run_server(tyro.cli(Serve), worker_command=(sys.executable, "-m", worker))
    except FramefeedError as error:
        print(f"framefeed: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, BadInput) else 1) from None
