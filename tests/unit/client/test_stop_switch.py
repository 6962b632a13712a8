"""The switch that wakes a feed's thread, and what waits for it."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from trainer_client.feed.stop_switch import StopSwitch


@pytest.fixture
def switch() -> Iterator[StopSwitch]:
    switch = StopSwitch()
    yield switch
    switch.close()


def readable(switch: StopSwitch) -> bool:
    return bool(select.select([switch.wake], [], [], 0)[0])


def test_a_rouse_ends_the_wait_for_it_and_is_still_to_be_seen(switch: StopSwitch) -> None:
    switch.rouse()
    switch.await_rouse(3600.0)
    assert readable(switch)


def test_a_wait_that_nobody_ends_is_over_in_its_time(switch: StopSwitch) -> None:
    switch.await_rouse(0.001)
    assert not readable(switch)


def test_to_throw_it_ends_a_wait(switch: StopSwitch) -> None:
    switch.throw()
    switch.await_rouse(3600.0)
    assert switch.thrown
