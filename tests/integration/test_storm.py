"""Real servers, real videos and a fault every second: the run is the undisturbed one, and its costs have bounds.

Beside the faults of processes and wires, storage is slow and every thirtieth read fails. What is on the wire can be
changed where it can be read: not with CURVE.

FRAMEFEED_CHAOS_SEED chooses the storm; it is printed, and so are the figures.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.box import Box
from tests.chaos.fleet import ATTEMPT_S, GRACE_S, CurveKeys, boxes, make_videos, plan
from tests.chaos.killer import Killer
from tests.chaos.observer import Observer
from tests.chaos.schedule import PROCESS_FAULTS, Arrival, Fault, Storm, arrivals, chaos_seed
from tests.chaos.trainer import Trainer

BATCH = 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


@dataclass(frozen=True, kw_only=True)
class Weather:
    """A storm and who is in it: `span_s` for `clips` clips of `side_px` pixels a side, shared by `ranks` trainers."""

    clips: int
    span_s: float
    servers: int
    ranks: int = 1
    side_px: int = 32
    curve: CurveKeys | None = None

    @property
    def steps(self) -> int:
        """Of each rank."""
        return self.clips // (BATCH * self.ranks)

    def faults(self, seed: int) -> list[Arrival]:
        """Of the kinds that can be done to what is on the wire."""
        kinds = tuple(Fault) if self.curve is None else (*PROCESS_FAULTS, Fault.CUT, Fault.DELAY)
        return arrivals(Storm(rate_hz=1.3, span_s=600, servers=self.servers, lasts_s=3.0, faults=kinds), seed=seed)


@contextlib.contextmanager
def trainers(root: Path, folder: Path, fleet: list[Box], weather: Weather, *, step_s: float) -> Iterator[list[Trainer]]:
    """All ranks of one run."""
    folder.mkdir()
    changes: dict[str, Any] = {"batch_clips": BATCH, "steps": weather.steps, "step_s": step_s}
    changes |= {"side_px": weather.side_px, "world_size": weather.ranks}
    if weather.curve is not None:
        changes["credentials"] = weather.curve.of_trainers
    with contextlib.ExitStack() as stack:
        plans = [plan(root, folder / f"rank{rank}", fleet, rank=rank, **changes) for rank in range(weather.ranks)]
        yield [stack.enter_context(Trainer(each)) for each in plans]


@contextlib.contextmanager
def watch(run: list[Trainer], servers: list[Box]) -> Iterator[list[Observer]]:
    """An observer of each rank; the first one's sees the servers too."""
    processes: Any = {f"server {number}": box.processes for number, box in enumerate(servers)}
    urls = [box.metrics_url for box in servers]
    with contextlib.ExitStack() as stack:
        observers = []
        for rank, trainer in enumerate(run):
            who: Any = {f"client {rank}": partial(lambda pid: [pid], trainer.process.pid)}
            first = rank == 0
            observer = Observer(trainer.metrics_url, who | (processes if first else {}), servers=urls if first else ())
            observers.append(stack.enter_context(observer))
        yield observers


def peaks(observers: list[Observer]) -> dict[str, int]:
    """The largest memory of everybody."""
    return {name: peak for observer in observers for name, peak in observer.peak_rss_bytes.items()}


def run_storm(root: Path, tmp_path: Path, weather: Weather) -> dict[str, Any]:
    """A calm run, then the same in a storm; asserts what must hold of its clips and returns the figures."""
    seed, steps = chaos_seed(), weather.steps
    print(f"FRAMEFEED_CHAOS_SEED={seed}", file=sys.stderr)
    options = () if weather.curve is None else weather.curve.of_servers
    with boxes(tmp_path, root, count=weather.servers, rough=True, options=options) as fleet:
        with trainers(root, tmp_path / "calm", fleet, weather, step_s=0.0) as calm, watch(calm, fleet) as usual:
            assert all(run.finish(within_s=240)["conserved"] for run in calm)
        with (
            trainers(root, tmp_path / "storm", fleet, weather, step_s=weather.span_s / steps) as run,
            watch(run, fleet) as seen,
            Killer(fleet, weather.faults(seed)) as killer,
        ):
            counts = [rank.finish(within_s=300) for rank in run]
        codes = [code for box in fleet for code in box.exit_codes]
    lines = [line for rank in run for line in rank.lines()]
    waits_s = [line.wait_s for rank in run for line in rank.lines()[1:]]
    assert killer.error is None
    for rank, undisturbed in zip(run, calm, strict=True):
        assert [line.identity for line in rank.lines()] == [line.identity for line in undisturbed.lines()]
    assert len(lines) == steps * weather.ranks
    assert [(count["used"], count["conserved"]) for count in counts] == [(steps * BATCH, True)] * weather.ranks
    assert [observer.violations for observer in seen] == [[]] * weather.ranks
    assert min(seen[0].server_scrapes, *(observer.scrapes for observer in seen)) > 0
    assert set(codes) <= {0}, "a drained server failed"
    struck = sum((box.proxy.done for box in fleet if box.proxy), killer.done)
    before = peaks(usual)
    a_client = max(peak for name, peak in before.items() if name.startswith("client"))  # some end before they are seen
    usually = {name: a_client if name.startswith("client") else peak for name, peak in before.items()}
    figures = {
        "seed": seed,
        "clips": weather.clips,
        "ranks": weather.ranks,
        "faults": {fault.value: count for fault, count in struck.items()},
        "faults_a_s": round(struck.total() / killer.ran_s, 2),
        "drained": len(codes),
        "scrapes": [sum(observer.scrapes for observer in seen), seen[0].server_scrapes],
        "longest_stall_s": round(max(waits_s), 3),
        "stalled_s": round(sum(waits_s), 1),
        "longest_decode_s": round(max(line.decode_s for line in lines), 3),
        "machine_pause_s": round(max(line.pause_s for line in lines), 3),
        "calm_longest_stall_s": round(max(line.wait_s for rank in calm for line in rank.lines()[1:]), 3),
        "rss_growth": {name: round(peak / usually[name], 2) for name, peak in peaks(seen).items()},
        "dropped": [count["dropped"] for count in counts],
    }
    print(json.dumps(figures), file=sys.stderr)
    return figures


@pytest.mark.slow
def test_a_gust_changes_no_byte(root: Path, tmp_path: Path) -> None:
    run_storm(root, tmp_path, Weather(clips=200, span_s=3.0, servers=2))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fault_every_second_changes_no_byte_and_costs_a_deadline(root: Path, tmp_path: Path) -> None:
    figures = run_storm(root, tmp_path, Weather(clips=5000, span_s=75.0, servers=4))
    allowed_s = ATTEMPT_S + GRACE_S + figures["longest_decode_s"] + 0.5 + figures["machine_pause_s"]
    assert figures["longest_stall_s"] <= allowed_s
    assert max(figures["rss_growth"].values()) <= 1.3
    assert set(figures["faults"]) == {fault.value for fault in Fault}
    assert figures["faults_a_s"] >= 0.8


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_storm_over_curve_changes_no_byte(root: Path, tmp_path: Path) -> None:
    curve = CurveKeys(tmp_path)
    figures = run_storm(root, tmp_path, Weather(clips=1500, span_s=45.0, servers=4, side_px=224, curve=curve))
    assert set(figures["faults"]) == {fault.value for fault in (*PROCESS_FAULTS, Fault.CUT, Fault.DELAY)}
    assert figures["faults_a_s"] >= 0.8
    assert max(figures["rss_growth"].values()) <= 1.3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_storm_with_eight_ranks_changes_no_byte(root: Path, tmp_path: Path) -> None:
    figures = run_storm(root, tmp_path, Weather(clips=3200, span_s=45.0, servers=4, ranks=8, side_px=224))
    assert figures["faults_a_s"] >= 0.8
    assert max(figures["rss_growth"].values()) <= 1.3
