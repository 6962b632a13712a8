"""What options of a server mean together."""

from __future__ import annotations

from pathlib import Path

import pytest

from decode_server.service.serve_options import ServeOptions


@pytest.mark.parametrize("drain_s", [0.2, 10.0, 40.0])
def test_a_drain_that_cannot_save_every_request_is_said(drain_s: float) -> None:
    options = ServeOptions(root=Path(), drain_s=drain_s, max_deadline_s=30.0)
    assert options.short_drain.startswith(f"--drain-s is {drain_s:g}, wanted more than --max-deadline-s 30 and 10 s")


@pytest.mark.parametrize(("drain_s", "deadline_s"), [(0.0, 30.0), (40.1, 30.0), (10.5, 0.4)])
def test_one_that_can_or_is_not_meant_to_is_not(drain_s: float, deadline_s: float) -> None:
    assert ServeOptions(root=Path(), drain_s=drain_s, max_deadline_s=deadline_s).short_drain == ""


def test_what_is_set_by_default_can() -> None:
    assert ServeOptions(root=Path()).short_drain == ""
