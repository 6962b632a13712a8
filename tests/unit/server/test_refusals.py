"""Each refusal is counted; the log has a line for each of them, or says how many have none."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from decode_server.service.listeners.gateway.grpc_auth import HANDSHAKE_S, Handshakes
from decode_server.service.refusals import LINES_A_SECOND, LINES_AT_ONCE, Refusals


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def count(registry: CollectorRegistry, reason: str) -> float:
    return registry.get_sample_value("framefeed_server_refused_total", {"reason": reason}) or 0.0


def test_a_line_each_until_there_are_too_many(caplog: pytest.LogCaptureFixture) -> None:
    registry, clock = CollectorRegistry(), Clock()
    refusals = Refusals(registry, clock=clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            refusals.refuse("token", "ipv4:10.0.0.1:1", "two\nlines")
        assert len(caplog.messages) == LINES_AT_ONCE
        clock.now_s += 1.0
        for _ in range(1000):
            refusals.refuse("key", "x", "y")
    assert caplog.messages[0] == "refused ipv4:10.0.0.1:1 (token): two lines"
    assert (
        caplog.messages[LINES_AT_ONCE] == f"refused x (key): y ({1000 - LINES_AT_ONCE} more before it are not listed)"
    )
    assert len(caplog.messages) == LINES_AT_ONCE + LINES_A_SECOND
    assert (count(registry, "token"), count(registry, "key")) == (1000, 1000)


@given(st.lists(st.floats(0, 3), max_size=400))
def test_lines_and_left_out_make_all(gaps_s: list[float]) -> None:
    registry, clock = CollectorRegistry(), Clock()
    refusals, lines = Refusals(registry, clock=clock), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("framefeed.serve")
    log.addHandler(handler)
    try:
        for gap_s in gaps_s:
            clock.now_s += gap_s / 100
            refusals.refuse("key", "x", "y")
        clock.now_s += 1e6
        refusals.refuse("key", "x", "y")
    finally:
        log.removeHandler(handler)
    left_out = sum(int(found[1]) for line in lines if (found := re.search(r"\((\d+) more before", line)))
    assert len(lines) + left_out == len(gaps_s) + 1 == count(registry, "key")


def test_a_connection_that_calls_is_not_counted() -> None:
    handshakes = Handshakes()
    handshakes.begin(0.0)
    handshakes.begin(1.0)
    handshakes.called("a")
    handshakes.called("a")
    assert handshakes.overdue(HANDSHAKE_S) == 0
    assert handshakes.overdue(HANDSHAKE_S + 1.0) == 1
    assert handshakes.overdue(1e9) == 0


@given(st.lists(st.tuples(st.sampled_from(["begin", "call"]), st.integers(0, 5)), max_size=60))
def test_all_connections_called_or_are_overdue(steps: list[tuple[str, int]]) -> None:
    handshakes, begun, answered, peers = Handshakes(), 0, 0, set[int]()
    for at_s, (step, peer) in enumerate(steps):
        if step == "begin":
            handshakes.begin(float(at_s) / 100)
            begun += 1
        else:
            answered += peer not in peers and answered < begun
            peers.add(peer)
            handshakes.called(str(peer))
    assert handshakes.overdue(1e9) == begun - answered
