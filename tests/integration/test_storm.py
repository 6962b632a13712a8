"""Real servers, real videos and a fault every second: the run is the undisturbed one, and its costs have bounds.

Beside the faults of processes and wires, storage is slow and every thirtieth read fails.

FRAMEFEED_CHAOS_SEED chooses the storm; it is printed, and so are the figures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.box import Box
from tests.chaos.fleet import ATTEMPT_S, GRACE_S, boxes, make_videos, plan
from tests.chaos.killer import Killer
from tests.chaos.observer import Observer
from tests.chaos.schedule import Fault, Storm, arrivals, chaos_seed
from tests.chaos.trainer import Trainer

BATCH = 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


def watch(trainer: Trainer, servers: list[Box]) -> Observer:
    processes: Any = {f"server {number}": box.processes for number, box in enumerate(servers)}
    urls = [box.metrics_url for box in servers]
    return Observer(trainer.metrics_url, {"client": lambda: [trainer.process.pid], **processes}, servers=urls)


def run_storm(root: Path, tmp_path: Path, *, clips: int, span_s: float, servers: int) -> dict[str, Any]:
    """A calm run, then the same in a storm; asserts what must hold of its clips and returns the figures."""
    seed, steps = chaos_seed(), clips // BATCH
    print(f"FRAMEFEED_CHAOS_SEED={seed}", file=sys.stderr)
    storm = arrivals(Storm(rate_hz=1.3, span_s=600, servers=servers, lasts_s=3.0), seed=seed)
    with boxes(tmp_path, root, count=servers, rough=True) as fleet:
        with (
            Trainer(plan(root, tmp_path / "calm", fleet, batch_clips=BATCH, steps=steps)) as calm,
            watch(calm, fleet) as usual,
        ):
            assert calm.finish(within_s=240)["conserved"]
        paced = plan(root, tmp_path / "storm", fleet, batch_clips=BATCH, steps=steps, step_s=span_s / steps)
        with Trainer(paced) as run, watch(run, fleet) as seen, Killer(fleet, storm) as killer:
            counts = run.finish(within_s=300)
        codes = [code for box in fleet for code in box.exit_codes]
    lines, waits_s = run.lines(), [line.wait_s for line in run.lines()[1:]]
    assert killer.error is None
    assert [line.identity for line in lines] == [line.identity for line in calm.lines()]
    assert (len(lines), counts["used"], counts["conserved"]) == (steps, clips, True)
    assert not seen.violations
    assert min(seen.scrapes, seen.server_scrapes) > 0
    assert set(codes) <= {0}, "a drained server failed"
    struck = sum((box.proxy.done for box in fleet if box.proxy), killer.done)
    growth = {name: peak / usual.peak_rss_bytes[name] for name, peak in seen.peak_rss_bytes.items()}
    figures = {
        "seed": seed,
        "clips": clips,
        "faults": {fault.value: count for fault, count in struck.items()},
        "faults_a_s": round(struck.total() / killer.ran_s, 2),
        "drained": len(codes),
        "scrapes": [seen.scrapes, seen.server_scrapes],
        "longest_stall_s": round(max(waits_s), 3),
        "stalled_s": round(sum(waits_s), 1),
        "longest_decode_s": round(max(line.decode_s for line in lines), 3),
        "machine_pause_s": round(max(line.pause_s for line in lines), 3),
        "calm_longest_stall_s": round(max(line.wait_s for line in calm.lines()[1:]), 3),
        "rss_growth": {name: round(ratio, 2) for name, ratio in growth.items()},
        "dropped": counts["dropped"],
    }
    print(json.dumps(figures), file=sys.stderr)
    return figures


def test_a_gust_changes_no_byte(root: Path, tmp_path: Path) -> None:
    run_storm(root, tmp_path, clips=200, span_s=3.0, servers=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fault_every_second_changes_no_byte_and_costs_a_deadline(root: Path, tmp_path: Path) -> None:
    figures = run_storm(root, tmp_path, clips=5000, span_s=75.0, servers=4)
    allowed_s = ATTEMPT_S + GRACE_S + figures["longest_decode_s"] + 0.5 + figures["machine_pause_s"]
    assert figures["longest_stall_s"] <= allowed_s
    assert max(figures["rss_growth"].values()) <= 1.3
    assert set(figures["faults"]) == {fault.value for fault in Fault}
    assert figures["faults_a_s"] >= 0.8
