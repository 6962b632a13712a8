"""The front bench at a small size: it proves its bytes and tells the front's CPU from its workers'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed_bench.front import FrontBench


@pytest.mark.slow
@pytest.mark.long
def test_each_number_of_workers_gets_its_row(tmp_path: Path) -> None:
    out = tmp_path / "front.json"
    FrontBench(workers=(1, 3), clips=640, rounds=1, out=out).run()
    result = json.loads(out.read_text())
    assert set(result["by_workers"]) == set(result["two_fronts"]) == {"tcp", "shm"}
    assert 0 < result["bare_socket_cpu_ms"]["sender"] < 50
    for rows in result["by_workers"].values():
        assert set(rows) == {"1", "3"}
        assert all(0 < row["front_cpu_ms"] * row["clips_per_s"] / 1000 < 3 for row in rows.values())  # of a core's time
    assert all(row["two_fronts_clips_per_s"] > 0 for row in result["two_fronts"].values())


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'rdma' is none, wanted some of tcp, shm"):
        FrontBench(transports=("rdma",), out=tmp_path / "f").run()
    with pytest.raises(BadInput, match="at least 1"):
        FrontBench(workers=(0,), out=tmp_path / "f").run()
