"""What metrics cost a server that is scraped once a second, and a trainer's status page its rank: CPU by counters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration import test_train
from tests.integration.serving import Client, Server, request

root = test_train.root  # a fixture: a folder of videos
pytestmark = pytest.mark.slow

SCRAPES = 150
MOST_S = 0.01  # a scrape, at one a second: a hundredth of one CPU, and a server has more


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_scrape_a_second_costs_a_server_less_than_a_hundredth_of_a_cpu(tmp_path: Path) -> None:
    """Of the whole process, which turns meanwhile, and answers 150 scrapes in far less than 150 s."""
    with Server(tmp_path, "/videos", "--workers", "2") as server:
        with Client(server.endpoint) as client:
            for seed in range(50):
                client.decode(request(seed=seed))
        before_s = cpu_s(server.pid)
        for _ in range(SCRAPES):
            assert server.get("/metrics")[0] == 200
        spent_s = (cpu_s(server.pid) - before_s) / SCRAPES
    print(f"a scrape costs {1000 * spent_s:.2f} ms of CPU: {100 * spent_s:.2f} % of one at one a second")
    assert 0 < spent_s <= MOST_S
