"""File descriptors of this process: as many as it may have, and how many are left for connections. Knows no transport.

A library that cannot get one may end the process (ZeroMQ's threads do), so they are counted before, and some are kept
free for whatever else the process opens: data, checkpoints, logs.
"""

from __future__ import annotations

import logging
import os
import resource

from framefeed.cli.descriptor_limit import raise_descriptor_limit

_log = logging.getLogger(__name__)

_KEPT_FREE = 32
_A_CONNECTION = 4  # of ZeroMQ: a socket, its monitor's two ends, and the connection, which is opened later
_LOW = 1 << 10
_said: set[int] = set()


def raise_limit() -> None:
    """Let this process have as many as it may (its hard limit, at most 65536), and say once if those are few."""
    soft = raise_descriptor_limit()
    if 0 <= soft < _LOW and soft not in _said:
        _said.add(soft)
        _log.warning("this process may have %d open files only (ulimit -Hn): servers may have to take turns", soft)


def no_room(connections: int) -> str:
    """Why there is no descriptor for a further connection beside so many; "" if there is. Counts what is open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:  # not even for that
        used = limit
    if used + connections + _A_CONNECTION + _KEPT_FREE <= limit:  # each connection may yet open one
        return ""
    return f"{used} of {limit} descriptors are in use for {connections} connections and others, {_KEPT_FREE} kept free"
