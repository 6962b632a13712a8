"""A run's state that anybody may have written: gone on from, or one line, at no cost in memory."""

from __future__ import annotations

import base64
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from tests.mutations import STRANGE, mangled, restructured
from trainer_client.feed.order import Order
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.feed.stand_ins import read
from trainer_client.samples import Sample

DATASET = [Sample(video=f"v{i}", start_s=0.0, end_s=1.0) for i in range(8)]
RECORD = '[[3, [1, 2], 0, 5, 77, "corrupt_media"]]'
SAMPLER = Sampler(samples=100, run_seed=7, share=Share(batch_clips=4, rank=0, world_size=2))


def _order_text() -> bytes:
    order = Order()
    for step in (0, 2, 1, 4, 3, 5):
        order.steps = order.offer(step)
    text = order.spell(6)
    assert text is not None
    return text.encode()


ORDER = _order_text()


@given(st.one_of(STRANGE, mangled(ORDER).map(lambda text: text.decode("latin-1"))), st.integers(0, 12))
def test_any_order_is_one_or_one_line(text: Any, steps: int) -> None:
    try:
        order = Order.read(text, steps=steps)
    except BadInput:
        return
    assert sorted(set(order.used(steps))) == sorted(order.used(steps))


@given(st.one_of(STRANGE, mangled(RECORD.encode()).map(lambda text: text.decode("latin-1"))))
def test_any_stand_ins_are_of_the_dataset_or_one_line(text: Any) -> None:
    try:
        found = read(text, DATASET)
    except BadInput:
        return
    for stand_in in found:
        assert stand_in.sample is DATASET[stand_in.index]
        assert all(0 <= index < len(DATASET) for index in stand_in.failed)


@pytest.mark.parametrize(
    "row",
    ['[3,[1],0,-1,7,"x"]', '[3,[99],0,1,7,"x"]', '[-3,[1],0,1,7,"x"]', '[3,[1],64,1,7,"x"]', '[3,[1],0,1,-7,"x"]'],
)
def test_stand_ins_that_no_run_can_have_had_are_refused(row: str) -> None:
    with pytest.raises(BadInput, match="resume: stand_ins is"):
        read(f"[{row}]", DATASET)


@given(restructured(SAMPLER.state_at(5)))
def test_any_state_is_of_this_plan_or_one_line(state: Any) -> None:
    try:
        step = SAMPLER.step_of(state if isinstance(state, dict) else {})
    except BadInput:
        return
    assert step >= 0


def test_an_order_is_unpacked_to_no_more_than_its_steps() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(1 << 28), 9)).decode()
    tracemalloc.start()
    try:
        for steps in (6, 1 << 40):
            with pytest.raises(BadInput, match=r"it is (not of 6|of more than \d+) steps"):
                Order.read(bomb, steps=steps)
        with pytest.raises(ValueError, match="wanted at most"):
            Order.read(None, steps=1 << 60).used(1 << 60)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
