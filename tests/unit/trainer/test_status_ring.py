"""The status page's JSON: what `top` says of the same looks, ten minutes of it and no more."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from framefeed.cli.top.history import History
from framefeed.cli.top.measure import Snapshot
from tests.unit.top.recorded_states import FOLDER, looks
from trainer_client.training.watch.status_ring import KEPT_S, StatusRing

NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_top_says(name: str) -> None:
    ring, history = StatusRing(every_s=5.0), History()
    for look in looks(name):
        ring.add(look)
        view = history.add(look)
    said = json.loads(ring.answer)
    assert said["verdict"] == {
        "kind": view.verdict.kind,
        "line": view.verdict.line,
        "reason": view.verdict.reason,
    }
    assert [rank["name"] for rank in said["ranks"]] == [rank.name for rank in view.state.ranks]
    assert [server["name"] for server in said["servers"]] == [server.name for server in view.state.servers]
    last = said["points"][-1]
    assert last["got_clips_s"] == pytest.approx(view.state.got_clips_s)
    assert last["demand_clips_s"] == pytest.approx(view.state.demand_clips_s)


def test_before_two_looks_it_has_no_point() -> None:
    ring = StatusRing(every_s=5.0)
    assert json.loads(ring.answer) == {"every_s": 5.0, "points": []}
    ring.add(Snapshot())
    assert json.loads(ring.answer)["points"] == []


def test_it_keeps_ten_minutes() -> None:
    ring = StatusRing(every_s=60.0)
    first, second = looks(NAMES[0])[:2]
    for number in range(30):
        look = (first, second)[number % 2]
        at_s = 60.0 * number
        ring.add(Snapshot(pages=tuple(replace(page, at_s=at_s) for page in look.pages)))
    points = json.loads(ring.answer)["points"]
    assert len(points) == KEPT_S / 60.0
    assert [point["at_s"] for point in points] == sorted(point["at_s"] for point in points)
