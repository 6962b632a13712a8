"""Servers that die, hang or are cut off: each costs its deadline at most, and all of them together an error that names
who waits for what.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.batch_log import Pauses, line_of, take
from tests.chaos.box import TRANSPORTS, Box
from tests.chaos.fleet import ATTEMPT_S, GRACE_S, boxes, make_videos, plan
from tests.chaos.schedule import Fault
from trainer_client.fleet.watchdog import Stalled
from trainer_client.loader import ClipLoader


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


def both_serve(run: ClipLoader, servers: list[Box]) -> bool:
    return all(run.stats.requests.get((box.url, "ok"), 0) > 5 for box in servers)


FAULTS = [(name, fault) for name in TRANSPORTS for fault in (Fault.KILL, Fault.STOP)]


@pytest.mark.slow
@pytest.mark.parametrize(("transport", "fault"), [*FAULTS, ("tcp", Fault.DELAY)], ids=str)
def test_a_lost_server_costs_its_deadline_and_one_decode(
    root: Path, tmp_path: Path, transport: str, fault: Fault
) -> None:
    """DELAY: what the server sends no longer arrives, and nobody is told."""
    with boxes(tmp_path, root, count=2, transport=transport, rough=fault is Fault.DELAY) as servers:
        lost = servers[0]
        with plan(root, tmp_path, servers, steps=None, batch_clips=4).open() as run:
            pauses, seen = Pauses(), [line_of(next(run))]
            while not both_serve(run, servers):
                seen += take(run, 1, pauses)
            calm = len(seen)
            if lost.proxy:
                lost.proxy.order(fault, lasts_s=600)
            else:
                lost.strike(fault, until_s=float("inf"))
            until_s = time.monotonic() + 1.5 * (ATTEMPT_S + GRACE_S)
            while time.monotonic() < until_s:
                seen += take(run, 1, pauses)
            assert run.stats.conserved
        with plan(root, tmp_path, servers[1:], steps=len(seen), batch_clips=4).open() as undisturbed:
            assert [line_of(batch).identity for batch in undisturbed] == [line.identity for line in seen]
    slowest = max(seen[calm:], key=lambda line: line.wait_s - line.pause_s)
    decode_s = max(line.decode_s for line in seen)
    assert slowest.wait_s <= ATTEMPT_S + GRACE_S + decode_s + 0.5 + slowest.pause_s


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_all_servers_stopped_is_an_error_in_time_and_going_on_in_time_is_none(
    root: Path, tmp_path: Path, transport: str
) -> None:
    with boxes(tmp_path, root, count=3, transport=transport) as servers:
        patient = plan(root, tmp_path, servers, batch_clips=4, stall_s=60.0).open()
        hasty = plan(root, tmp_path, servers, batch_clips=4, stall_s=5.0).open()
        with patient, hasty:
            before = [line_of(next(patient)).identity for _ in range(5)]
            assert [line_of(next(hasty)).identity for _ in range(5)] == before
            for box in servers:
                box.strike(Fault.STOP, until_s=0.0)
            began_s = time.monotonic()
            with pytest.raises(Stalled, match=r"clip\d \[\d.*\) s at ") as stalled:
                list(hasty)
            assert time.monotonic() - began_s < 5.0 + 10.0
            assert all(box.url in str(stalled.value) for box in servers)
            for box in servers:
                box.tend(1.0)
            after = [line_of(batch).identity for batch in patient]
            assert patient.stats.conserved
            hasty.load_state_dict(hasty.state_dict())
            rest = [line_of(batch).identity for batch in hasty]
    assert [step for step, *_ in before + after] == list(range(100))
    assert rest == after[-len(rest) :]
    with boxes(tmp_path, root, count=1) as one, plan(root, tmp_path, one, batch_clips=4).open() as undisturbed:
        assert [line_of(batch).identity for batch in undisturbed] == before + after


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_rolling_restart_of_every_server_fails_and_doubles_nothing(
    root: Path, tmp_path: Path, transport: str
) -> None:
    with boxes(tmp_path, root, count=2, transport=transport) as servers:
        with plan(root, tmp_path, servers, steps=None, batch_clips=4, attempt_s=30.0).open() as run:
            pauses, seen = Pauses(), [line_of(next(run))]
            for box in servers:
                box.strike(Fault.DRAIN, until_s=0.0)
                while not box.serving:
                    box.tend(time.monotonic())
                    seen += take(run, 1, pauses)
                while run.stats.servers[box.url] != "up":
                    seen += take(run, 1, pauses)
            stats = run.stats
        assert [box.exit_codes for box in servers] == [[0], [0]]
        assert stats.conserved
        assert set(stats.dropped) <= {"draining", "superseded"}, "a request failed"
        assert set(stats.dropped_replies) <= {"late"}, (
            "a hedge that was superseded is late; a doubled clip would be another"
        )
