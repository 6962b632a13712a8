"""What each front of a box is told: its addresses, CPUs, workers and part of the memory. Pure; it starts nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from decode_server.service.box_addresses import check_no_clash, front_port, front_url
from decode_server.service.box_messages import FrontSetup
from decode_server.service.health import parse_metrics_host
from decode_server.service.listeners.endpoint import Endpoint
from decode_server.service.serve_options import ServeOptions
from decode_server.service.workers.domains import Domain


def plan_fronts(
    options: ServeOptions, endpoints: Sequence[Endpoint], domains: Sequence[Domain], *, worker_command: tuple[str, ...]
) -> list[FrontSetup]:
    """One for each domain. Raises BadInput for addresses that are no such number of addresses."""
    metrics = parse_metrics_host(options.metrics_host), options.metrics_port
    check_no_clash(endpoints, metrics, len(domains))
    return [
        FrontSetup(
            options=dataclasses.replace(
                options,
                bind=tuple(front_url(one.url, number) for one in endpoints),
                metrics_port=front_port(options.metrics_port, number),
                buffer_pool_mib=domain.buffer_pool_mib,
                announce=None,  # the box's, which names them all
                fronts=1,
            ),
            cpus=domain.cpus,
            worker_slots=domain.worker_slots,
            worker_command=worker_command,
        )
        for number, domain in enumerate(domains)
    ]
