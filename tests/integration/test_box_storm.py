"""A box of two fronts whose processes are killed and stopped all the time: the run is the undisturbed one.

FRAMEFEED_CHAOS_SEED chooses the storm; it is printed, and so are the figures.
"""

from __future__ import annotations

import json
import select
import signal
import sys
from pathlib import Path

import pytest

from tests.chaos.batch_log import line_of
from tests.chaos.box import fixed_bind
from tests.chaos.fleet import boxes, make_videos, plan
from tests.chaos.part_killer import PartKiller
from tests.chaos.schedule import Fault, Storm, arrivals, chaos_seed
from tests.integration.box_of_fronts import BoxOfFronts
from tests.integration.serving import SERVE, wait_until

STEPS, BATCH, SPAN_S = 60, 8, 15.0


@pytest.mark.slow
def test_a_storm_over_the_parts_of_a_box_changes_no_byte_and_loses_no_clip(tmp_path: Path) -> None:
    root, seed = make_videos(tmp_path), chaos_seed()
    print(f"FRAMEFEED_CHAOS_SEED={seed}", file=sys.stderr)
    storm = arrivals(Storm(rate_hz=1.3, span_s=600, servers=2, lasts_s=3.0, faults=(Fault.KILL, Fault.STOP)), seed=seed)
    with BoxOfFronts(tmp_path, str(root), bind=fixed_bind("tcp"), program=SERVE) as box:
        killer = PartKiller(box, storm, seed=seed)
        with plan(root, tmp_path, box.urls, steps=STEPS, batch_clips=BATCH).open() as run:
            with killer.struck():
                seen = []
                for batch in run:
                    seen.append(line_of(batch))
                    select.select([], [], [], SPAN_S / STEPS)  # a training step
            assert run.stats.conserved
            assert run.stats.used == STEPS * BATCH
            figures = {"seed": seed, "faults": killer.done, "dropped": run.stats.dropped}
        print(json.dumps(figures), file=sys.stderr)
        assert killer.error is None
        assert killer.done["front: kill"] + killer.done["front: stop"] > 0
        wait_until("both fronts serve again", lambda: len(box.now()) == 2)
        assert box.process.poll() is None, "the box is the same process"
        box.signal(signal.SIGTERM)
        assert box.wait() == 0
    with (
        boxes(tmp_path, root, count=1) as one,
        plan(root, tmp_path, one, steps=STEPS, batch_clips=BATCH).open() as alone,
    ):
        assert [line_of(batch).identity for batch in alone] == [line.identity for line in seen]
