"""A trainer that may open few files and is given many servers: `python -m tests.crowded_trainer LIMIT UP URL...`.

Checks every batch until UP servers are there at once, and one more after that; prints how many are.
"""

from __future__ import annotations

import logging
import os
import resource
import sys

from tests.integration.test_client import check, loader, take_until

if __name__ == "__main__":
    limit, up, urls = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    logging.basicConfig(level=logging.WARNING)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 80), limit))  # the soft one is raised by the loader
    with loader(*urls, steps=None, stall_s=200.0, affinity_slack=None) as run:
        take_until(run, lambda: list(run.stats.servers.values()).count("up") == up, at_least=25)
        open_files = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        check(next(run))
        assert run.stats.conserved
        for fd in open_files:
            os.close(fd)
    print(f"{up} up, limit {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}")
