"""A server on another host whose cable is pulled: the run goes on with the other one, and uses it again later."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.batch_log import Pauses, line_of, take
from tests.chaos.fleet import ATTEMPT_S, GRACE_S, SERVER, boxes, make_videos, plan
from tests.chaos.hosts import Host, hosts_can_be_made
from tests.integration.serving import SERVE, Server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "grpc"])
def test_a_pulled_cable_costs_a_deadline_and_changes_no_byte(root: Path, tmp_path: Path, transport: str) -> None:
    if why := hosts_can_be_made():
        pytest.skip(why)
    pauses = Pauses()
    with Host(0) as host, boxes(tmp_path, root, count=1) as near:
        far_bind = ("--bind", f"{transport}://{host.address}:0", "--public", "--insecure")
        far_bind += ("--metrics-host", host.address)
        with (
            Server(tmp_path, str(root), *SERVER, *far_bind, program=SERVE, under=host.enter) as far,
            plan(root, tmp_path, [*near, far], steps=None, batch_clips=4).open() as run,
        ):

            def served_by_far() -> int:
                return run.stats.requests.get((far.endpoint, "ok"), 0)

            seen = take(run, 5, pauses)
            while served_by_far() < 5:
                seen += take(run, 1, pauses)
            calm = len(seen)
            host.pull_cable()
            until_s = time.monotonic() + 1.5 * (ATTEMPT_S + GRACE_S)
            while time.monotonic() < until_s or run.stats.servers[far.endpoint] == "up":
                seen += take(run, 1, pauses)
            host.plug_in()
            before = served_by_far()
            while served_by_far() < before + 5:
                seen += take(run, 1, pauses)
            assert run.stats.conserved
        with plan(root, tmp_path, near, steps=len(seen), batch_clips=4).open() as undisturbed:
            assert [line_of(batch).identity for batch in undisturbed] == [line.identity for line in seen]
    slowest = max(seen[calm:], key=lambda line: line.wait_s - line.pause_s)
    decode_s = max(line.decode_s for line in seen)
    assert slowest.wait_s <= ATTEMPT_S + GRACE_S + decode_s + 0.5 + slowest.pause_s
