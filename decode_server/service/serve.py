"""`framefeed serve ROOT`: one server in this process, or a box of several, as many as its CPUs want.

It plans and says what there will be; the server and the box do the rest.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from decode_server.service.box import Box, BoxLimits
from decode_server.service.box_capacity import NETWORKS, describe_capacity, read_links
from decode_server.service.box_plan import plan_fronts
from decode_server.service.listeners.endpoint import parse_bind
from decode_server.service.serve_options import DEFAULT_BIND, ServeOptions
from decode_server.service.server import run_front, sizes_of
from decode_server.service.workers.domains import Domain, DomainLimits, plan_domains, read_cpus
from decode_server.service.workers.supervisor import WORKER_COMMAND
from decode_server.service.workers.topology import (
    SYSFS_CPUS,
    choose_sockets,
    plan_worker_slots,
    read_sockets,
)
from framefeed.cgroups import read_cpu_quota
from framefeed.cli.log_lines import log_to_stderr
from framefeed.cli.standard_streams import bound_stdout
from framefeed.folder_guard import warn_if_exposed
from framefeed.manifest import check_indexed

log = logging.getLogger("framefeed.serve")

__all__ = ["DEFAULT_BIND", "Serve", "run_server"]


@dataclass(frozen=True, kw_only=True)
class Serve(ServeOptions):
    """Serve clips of a folder of videos until SIGTERM or Ctrl-C."""

    def run(self) -> None:
        """Serve until a stop signal. Raises BadInput for options or a root that cannot be used."""
        check_indexed(self.index or self.root)
        log_to_stderr()
        bound_stdout()
        run_server(self)


def run_server(options: ServeOptions, *, worker_command: tuple[str, ...] = WORKER_COMMAND) -> None:
    """Serve until a stop signal; `worker_command` is what starts a worker. In the main thread only.

    Raises BadInput for options or a root that cannot be used, FramefeedError if it could not end in good order.
    """
    endpoints = [parse_bind(bind, public_allowed=options.public) for bind in options.bind or (DEFAULT_BIND,)]
    _warn_of_exposed_folders(options)
    if options.short_drain:
        log.warning("%s", options.short_drain)
    domains = _domains(options)
    log.info("%s", describe_capacity([domain.threads for domain in domains], read_links(NETWORKS)))
    if len(domains) == 1:
        run_front(options, domains[0].worker_slots, worker_command=worker_command)
        return
    fronts = plan_fronts(options, endpoints, domains, worker_command=worker_command)
    limits = BoxLimits(drain_s=options.drain_s, hang_s=options.hang_s, lease_s=options.lease_s)
    Box(fronts, announce=options.announce, limits=limits).run()


def _domains(options: ServeOptions) -> tuple[Domain, ...]:
    allowed = frozenset(os.sched_getaffinity(0))
    sockets = choose_sockets(read_sockets(SYSFS_CPUS, allowed), options.sockets)
    worker_slots = plan_worker_slots(
        sockets, workers=options.workers, threads=options.threads, quota_cpus=read_cpu_quota()
    )
    limits = DomainLimits(
        threads=options.threads,
        front_threads=options.front_threads,
        fronts=options.fronts,
        buffer_pool_mib=sizes_of(options, len(worker_slots) * options.threads).buffer_pool_mib,
    )
    return plan_domains(read_cpus(SYSFS_CPUS, worker_slots), worker_slots, limits)


def _warn_of_exposed_folders(options: ServeOptions) -> None:
    warn_if_exposed(options.index or options.root, what="index", log=log)
    if options.registry is not None:
        warn_if_exposed(options.registry, what="--registry", log=log)
