"""An autoscaler on a real cluster and a load from a file: prints how many servers there are after each turn.

`python -m tests.integration.fleet_load ADDRESS LOAD LEAST`: its clock is the load's, so that calm takes no time.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from framefeed.cli.fleet.autoscaler import Autoscaler
from framefeed.cli.fleet.policy import FleetLimits, Signals
from framefeed.cli.fleet.ray_plane import RayPlane


def main(address: str, load: Path, least: int) -> None:
    """Turn by turn, with never fewer than `least` but by a drain."""
    limits = FleetLimits(least=least, most=3, calm_s=60, settle_s=10)
    counts = sys.stdout  # Ray prints by itself
    with RayPlane(address) as plane:
        spec, _, _ = plane.kept()
        scaler = Autoscaler(plane, spec, drain_s=30, registry=CollectorRegistry())
        for step in json.loads(load.read_text()):
            up = [server for server in plane.servers() if server.state == "up"]
            wanted = scaler.turn(limits, Signals(**{**step, "servers": len(up)})).wanted
            print(_settled(plane, wanted), file=counts, flush=True)


def _settled(plane: RayPlane, wanted: int) -> int:
    """How many are up, once that is what is wanted."""
    until_s = time.monotonic() + 90
    while (count := sum(server.state == "up" for server in plane.servers())) != wanted:
        assert time.monotonic() < until_s, f"{count} servers, wanted {wanted}"
        time.sleep(0.2)
    return count


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
