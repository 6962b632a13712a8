"""How many descriptors this process may have: as many as the system lets it. It knows not what they are for.

A connection takes some; a limit of 1024, which many systems start with, is less than those of one large run.
"""

from __future__ import annotations

import resource

_ENOUGH = 1 << 16  # programs that close every descriptor there may be are slow with millions


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one, at most 65536. Returns what it is now; -1 is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft
