"""Who has no key costs a bounded number of connections: an authorised trainer beside 2,000 of them keeps its rate.

Rates are compared within one test, in turns without and with the strangers (A B A B), on a machine that does no more.
The strangers work on a core of their own, as on a machine of their own: what they spend on their own handshakes is
theirs, and what they cost the server is taken from the core that it shares with the run.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from framefeed_bench.one_core import on_core, two_cores
from tests.integration.adversary import CROWD, HonestRun, Peer, crowd, withstands
from tests.integration.serving import Server
from tests.integration.ways import way

TURNS, TURN_S = 5, 8.0
LEAST_SHARE = 0.9


@contextmanager
def curve_strangers(server: Server, folder: Path) -> Iterator[None]:
    """Real CURVE handshakes with a key that is not on the list."""
    public, secret = zmq.curve_keypair()
    server_key = (folder / "server.public").read_text().split()[0].encode()
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4 * CROWD)
    dealers = []
    for _ in range(CROWD):
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RECONNECT_IVL, 20_000)
        dealer.curve_publickey, dealer.curve_secretkey, dealer.curve_serverkey = public, secret, server_key
        dealer.connect(server.endpoint)
        dealers.append(dealer)
    try:
        yield
    finally:
        for dealer in dealers:
            dealer.close()
        context.term()


@contextmanager
def tls_strangers(server: Server, folder: Path) -> Iterator[None]:
    """Connections that begin a handshake and show no certificate."""
    peers: list[Peer] = crowd(server.endpoint, CROWD, b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(64))
    try:
        yield
    finally:
        for peer in peers:
            peer.socket.close()


STRANGERS = {"tcp+curve": (curve_strangers, "key"), "grpcs+mtls": (tls_strangers, "handshake")}


def clips_a_second(run: HonestRun) -> float:
    """Its rate over a turn."""
    before, begun_s = run.clips, time.monotonic()
    threading.Event().wait(TURN_S)
    return (run.clips - before) / (time.monotonic() - begun_s)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRANGERS)
def test_2000_strangers_cost_the_run_no_clip(tmp_path: Path, name: str) -> None:
    secured = way(name, tmp_path)
    strangers, reason = STRANGERS[name]
    with (
        secured.start(tmp_path) as server,
        HonestRun(server.endpoint, secured.credentials) as run,
        withstands(server, run, reason),
        strangers(server, tmp_path),
    ):
        run.goes_on()


@pytest.mark.calm
@pytest.mark.parametrize("name", STRANGERS)
def test_2000_strangers_leave_a_run_its_rate(tmp_path: Path, name: str) -> None:
    secured = way(name, tmp_path)
    strangers, _ = STRANGERS[name]
    alone, beside = [], []
    served_on, theirs = two_cores()
    with (
        on_core(served_on),
        secured.start(tmp_path) as server,
        HonestRun(server.endpoint, secured.credentials) as run,
        on_core(theirs),
    ):
        clips_a_second(run)
        for _ in range(TURNS):
            alone.append(clips_a_second(run))
            with strangers(server, tmp_path):
                beside.append(clips_a_second(run))
    share = statistics.median(rate / without for rate, without in zip(beside, alone, strict=True))
    print(f"{name}: {statistics.median(alone):.0f} clips/s alone, {share:.2f} of it beside {CROWD} strangers")
    assert share >= LEAST_SHARE
