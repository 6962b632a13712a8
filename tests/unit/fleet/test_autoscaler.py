"""A fleet kept at its size: what is started, drained, said and counted, over a plane whose boxes are in memory."""

from __future__ import annotations

import json
import logging
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from framefeed.cli.fleet.autoscaler import Autoscaler, reconcile
from framefeed.cli.fleet.plane import FleetSpec, PlacedServer, next_names, to_drain
from framefeed.cli.fleet.policy import FleetLimits, Signals
from framefeed.cli.fleet.verbs import FleetScale, FleetUp, check_reachable
from framefeed.errors import BadInput, FramefeedError

SPEC = FleetSpec(python="python3", root=Path("/nfs/chunks"), registry=Path("/nfs/run"), options=("--public",))
LOAD = json.loads((Path(__file__).parent / "load.json").read_text())


class MemoryPlane:
    """Boxes with room for so many servers, each up at once; what is too much is pending."""

    def __init__(self, room: int, *servers: PlacedServer) -> None:
        self.room, self.code = room, 0
        self.have = {server.name: server for server in servers}
        self.drained: list[str] = []

    def servers(self) -> list[PlacedServer]:
        return sorted(self.have.values(), key=lambda server: server.name)

    def start(self, name: str, spec: FleetSpec, *, local: bool) -> None:
        assert name not in self.have
        self.have[name] = PlacedServer(name=name, state="up" if len(self.have) < self.room else "pending")

    def drain(self, name: str, *, limit_s: float) -> int | None:
        del self.have[name]
        self.drained.append(name)
        return self.code


def up(*names: str, state: str = "up") -> list[PlacedServer]:
    return [PlacedServer(name=name, state=state) for name in names]


def test_a_server_s_command_names_its_socket_and_registry() -> None:
    command = SPEC.command(1)
    assert command[:5] == ("python3", "-m", "framefeed.cli", "serve", "/nfs/chunks")
    assert command[5:] == ("--registry", "/nfs/run", "--sockets", "1", "--public")


@pytest.mark.parametrize("change", [{"root": Path("chunks")}, {"registry": Path("run")}, {"options": ("--sockets=1",)}])
def test_what_cannot_be_the_same_on_every_box_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="fleet: "):
        replace(SPEC, **change)  # type: ignore[arg-type]


def test_names_are_the_lowest_that_are_free() -> None:
    have = up("decode-0", "decode-2", "local-0")
    assert next_names(have, 2, local=False) == ["decode-1", "decode-3"]
    assert next_names(have, 1, local=True) == ["local-1"]
    assert next_names(have, -1, local=False) == []


def test_those_that_do_not_serve_are_ended_first_and_then_the_last() -> None:
    have = [*up("decode-0", "decode-10", "decode-9"), *up("decode-1", state="pending")]
    assert to_drain(have, 2) == ["decode-1", "decode-10"]
    assert to_drain(have, -1) == []


@pytest.mark.parametrize(
    ("have", "wanted", "local", "names"),
    [
        ([], 3, 1, ["decode-0", "decode-1", "local-0"]),
        (["decode-0", "local-0"], 1, 1, ["local-0"]),
        (["decode-0", "decode-1", "decode-2"], 1, 0, ["decode-0"]),
        (["decode-0", "decode-1"], 2, 1, ["decode-0", "local-0"]),
        (["decode-0"], 0, 0, []),
        (["local-0", "local-1"], 1, 5, ["local-0"]),
    ],
)
def test_servers_are_started_and_drained_to_what_is_wanted(
    have: list[str], wanted: int, local: int, names: list[str]
) -> None:
    plane = MemoryPlane(9, *up(*have))
    reconcile(plane, SPEC, plane.servers(), wanted=wanted, local=local, drain_s=1)
    assert sorted(plane.have) == names


def test_one_that_drains_already_does_not_count() -> None:
    plane = MemoryPlane(9, *up("decode-0", state="draining"), *up("decode-1"))
    reconcile(plane, SPEC, plane.servers(), wanted=2, local=0, drain_s=1)
    assert sorted(plane.have) == ["decode-0", "decode-1", "decode-2"]


def test_a_load_takes_the_fleet_from_one_to_three_and_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each decision is one line, one event and one count, with its reason."""
    plane, registry = MemoryPlane(9), CollectorRegistry()
    scaler = Autoscaler(plane, SPEC, drain_s=1, registry=registry)
    limits = FleetLimits(least=1, most=8, calm_s=60, settle_s=10)
    sizes = []
    with caplog.at_level(logging.INFO, logger="framefeed.fleet"):
        for step in LOAD:
            scaler.turn(limits, Signals(**{**step, "servers": len(plane.have)}))
            sizes.append(len(plane.have))
    assert [size for at, size in enumerate(sizes) if at == 0 or size != sizes[at - 1]] == [1, 3, 1]
    changes = [event for event in scaler.events if event.wanted != event.before]
    assert [(event.before, event.wanted, event.cause) for event in changes] == [(1, 3, "starved"), (3, 1, "not_needed")]
    lines = [record.message for record in caplog.records if "servers wanted" in record.message]
    assert len(lines) == len(scaler.events)
    assert all(event.reason in line for event, line in zip(scaler.events, lines, strict=True))
    for cause in ("starved", "not_needed"):
        assert registry.get_sample_value("framefeed_fleet_decisions_total", {"cause": cause}) == 1
    assert registry.get_sample_value("framefeed_fleet_wanted_servers") == 1
    assert registry.get_sample_value("framefeed_fleet_servers", {"state": "pending"}) == 0


def measured(at_s: float, *, servers: int, starvation: float = 0.0) -> Signals:
    """What a run says that takes 180 clips/s, of servers that give 100 each."""
    return Signals(
        at_s=at_s,
        servers=servers,
        verdict="decode_bound" if starvation else "trainer_bound",
        starvation=starvation,
        demand_clips_s=180,
        could_clips_s=100 * servers,
    )


@pytest.mark.parametrize("least", [1, 2])
def test_one_that_was_drained_by_hand_is_not_replaced_until_a_rank_starves_for_it(least: int) -> None:
    """Nor is it where the fleet was to have so many at least (`fleet scale 2`)."""
    plane, registry = MemoryPlane(9, *up("decode-0", "decode-1")), CollectorRegistry()
    scaler = Autoscaler(plane, SPEC, drain_s=1, registry=registry)
    limits = FleetLimits(least=least, most=2, calm_s=60, settle_s=10)
    for at_s in (0.0, 5.0):
        assert scaler.turn(limits, measured(at_s, servers=2)).wanted == 2
    plane.have["decode-1"] = replace(plane.have["decode-1"], state="drained")
    for at_s in (10.0, 15.0, 100.0):
        assert scaler.turn(limits, measured(at_s, servers=1)).wanted == 1
        assert sorted(plane.have) == ["decode-0", "decode-1"], "as drained as it was"
    assert registry.get_sample_value("framefeed_fleet_servers", {"state": "drained"}) == 1
    scaler.turn(limits, measured(105.0, servers=1, starvation=0.4))
    assert sorted(plane.have) == ["decode-0", "decode-1", "decode-2"]
    del plane.have["decode-1"]  # its place was freed
    scaler.turn(limits, measured(110.0, servers=2))
    assert sorted(plane.have) == ["decode-0", "decode-2"]


def test_an_autoscaler_that_comes_later_leaves_one_drained_as_it_is() -> None:
    plane = MemoryPlane(9, *up("decode-0"), *up("decode-1", state="drained"))
    Autoscaler(plane, SPEC, drain_s=1, registry=CollectorRegistry()).turn(
        FleetLimits(least=2, most=4), measured(0.0, servers=1)
    )
    assert sorted(plane.have) == ["decode-0", "decode-1"]


def test_a_server_that_did_not_end_well_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plane = MemoryPlane(9, *up("decode-0"))
    plane.code = 1
    reconcile(plane, SPEC, plane.servers(), wanted=0, local=0, drain_s=1)
    assert "decode-0 is gone, exit code 1" in caplog.text


def test_options_are_checked_before_a_cluster_is_asked() -> None:
    for change in ({"servers": -1}, {"every_s": 0.0}, {"drain_s": -1.0}, {"metrics_port": 1 << 16}):
        with pytest.raises(BadInput, match="--"):
            FleetUp(root=Path("/a"), registry=Path("/b"), **change)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="most is 8 and the least 9"):
        FleetUp(root=Path("/a"), registry=Path("/b"), least=9).run()
    with pytest.raises(BadInput, match="wanted 0 to"):
        FleetScale(count=-1).run()


@pytest.mark.parametrize("port", ["closed", "99999"])
def test_a_cluster_s_address_at_which_nobody_listens_is_said_at_once(port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_port = listener.getsockname()[1]
        check_reachable(f"127.0.0.1:{open_port}")
    address = f"127.0.0.1:{open_port if port == 'closed' else port}"
    with pytest.raises(FramefeedError, match=f"--ray {address}: no cluster there: "):
        check_reachable(address)


@pytest.mark.parametrize("address", ["auto", "local", "ray://head:10001"])
def test_an_address_that_is_ray_s_own_to_find_is_not_tried(address: str) -> None:
    check_reachable(address)
