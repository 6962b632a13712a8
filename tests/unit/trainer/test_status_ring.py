"""The status page's JSON: what `top` says of the same looks, ten minutes of it and no more."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from framefeed.cli.top.history import History
from framefeed.cli.top.measure import Snapshot
from framefeed.cli.top.metrics_page import Page
from tests.unit.top import test_measure as made
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
    assert {server["name"] for server in said["servers"]} == {server.name for server in view.state.servers}
    last = said["points"][-1]
    assert last["got_clips_s"] == pytest.approx(view.state.got_clips_s)
    assert last["demand_clips_s"] == pytest.approx(view.state.demand_clips_s)


def test_it_says_what_it_leaves_out_and_shows_the_worst() -> None:
    ranks = {f"t{rank:02}": made.trainer(0.0, 0.0, rank=rank) for rank in range(66)}
    servers = {f"tcp://s{number:03}:5555": "offline" if number == 139 else "up" for number in range(140)}
    ranks["t00"] += "".join(made.seen(name, state) for name, state in servers.items())
    silent = tuple(Page(url=f"http://away{number}:9/metrics", trouble="timed out") for number in range(25))
    ring = StatusRing(every_s=5.0)
    for at_s in (0.0, 5.0):
        ring.add(Snapshot(pages=(*made.look(at_s, **ranks).pages, *silent)))
    said = json.loads(ring.answer)
    assert said["left_out"] == {"ranks": 2, "servers": 12, "silent": 5}
    assert (len(said["ranks"]), len(said["servers"]), len(said["silent"])) == (64, 128, 20)
    assert [server["name"] for server in said["servers"] if not server["up"]] == ["tcp://s139:5555"]


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
