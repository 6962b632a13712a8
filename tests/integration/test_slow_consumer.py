"""A trainer that stops reading for 30 s: memory stays bounded on both sides, on every transport, and nothing is lost.

Two kinds at once: one whose loop is busy elsewhere while its feed goes on, and one that is stopped as a whole.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.box import TRANSPORTS
from tests.chaos.fleet import boxes, make_videos, plan
from tests.chaos.observer import Observer, rss_bytes
from tests.chaos.trainer import Plan, Trainer
from tests.integration.serving import wait_until

IDLE_S = 30.0
STEPS = 12
CLIPS = {"frames": 8, "side_px": 160, "batch_clips": 10, "steps": STEPS, "stall_s": 120.0}  # 614 kB a clip
BATCH_BYTES = 10 * 8 * 160 * 160 * 3
POOL_BYTES, SLACK_BYTES = 16 << 20, 32 << 20
CLIENT_BYTES = 5 * BATCH_BYTES  # two made ahead, one used, and the spare slots of both


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


class Pair:
    """A server of one transport and two trainers that will stop reading from it."""

    def __init__(self, stack: contextlib.ExitStack, root: Path, folder: Path, *, transport: str) -> None:
        folder.mkdir()
        (self.box,) = stack.enter_context(boxes(folder, root, count=1, transport=transport))
        self.idle_bytes = self.server_bytes()
        self.idle = stack.enter_context(Trainer(self.plan(root, folder / "idle", idle_after=2, idle_s=IDLE_S)))
        self.stopped = stack.enter_context(Trainer(self.plan(root, folder / "stopped", step_s=0.05)))
        processes: Any = {
            "server": self.box.processes,
            "idle": lambda: [self.idle.process.pid],
            "stopped": lambda: [self.stopped.process.pid],
        }
        self.seen = stack.enter_context(Observer(self.idle.metrics_url, processes))

    def plan(self, root: Path, folder: Path, **changes: Any) -> Plan:
        return plan(root, folder, [self.box], **CLIPS, **changes)

    def begun(self) -> bool:
        return len(self.idle.lines()) > 2 and len(self.stopped.lines()) > 2

    def server_bytes(self) -> int:
        return sum(map(rss_bytes, self.box.processes()))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_trainer_that_stops_reading_loses_nothing_and_takes_bounded_memory(root: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        pairs = {name: Pair(stack, root, tmp_path / name, transport=name) for name in TRANSPORTS}
        for pair in pairs.values():
            wait_until("both have begun", pair.begun)
            os.kill(pair.stopped.process.pid, signal.SIGSTOP)
        time.sleep(IDLE_S)  # the thing that is tested
        for pair in pairs.values():
            os.kill(pair.stopped.process.pid, signal.SIGCONT)
        counts = {
            name: [trainer.finish(within_s=120) for trainer in (pair.idle, pair.stopped)]
            for name, pair in pairs.items()
        }
    expected = [line.identity for line in pairs["tcp"].idle.lines()]
    assert [step for step, *_ in expected] == list(range(STEPS))
    for name, pair in pairs.items():
        assert [line.identity for line in pair.idle.lines()] == expected, name
        assert [line.identity for line in pair.stopped.lines()] == expected, name
        assert all(count["conserved"] and count["used"] == STEPS * 10 for count in counts[name]), name
        assert not counts[name][0]["dropped"], f"{name}: a busy loop costs no request"
        assert not pair.seen.violations, name
        server_grew = pair.seen.peak_rss_bytes["server"] - pair.idle_bytes
        figures = {key: f"{peak / 1e6:.0f} MB" for key, peak in pair.seen.peak_rss_bytes.items()}
        print(name, f"server grew {server_grew / 1e6:.0f} MB;", figures)
        assert server_grew < 2 * POOL_BYTES + SLACK_BYTES, name  # front and worker both map the buffer pool
        for who in ("idle", "stopped"):
            assert pair.seen.peak_rss_bytes[who] < 100e6 + CLIENT_BYTES + SLACK_BYTES, name
