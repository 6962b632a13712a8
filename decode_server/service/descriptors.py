"""How many descriptors this process may have: as many as the system lets it. It knows not what they are for.

A client over shared memory or a network connection takes one, a worker a few; a limit of 1024, which many systems start
with, is less than the clients of one large run.
"""

from __future__ import annotations

import logging
import resource

log = logging.getLogger("framefeed.serve")

_ENOUGH = 1 << 16  # programs that close every descriptor there may be are slow with millions
_LOW = 1 << 11


def raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard one, at most 65536, and say if that is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != resource.RLIM_INFINITY and soft < _LOW:
        log.warning("this process may have %d open files only (ulimit -Hn), and each client takes one", soft)
