"""What was used when is kept: nothing twice, nothing lost, and text that brings it back."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from trainer_client.feed.order import Order, window_of


@st.composite
def windowed(draw: st.DrawFn) -> list[int]:
    """Steps as a window of 4 may deliver them."""
    undone, used = list(range(30)), []
    for _ in range(draw(st.integers(0, 26))):
        choices = [step for step in undone if step < undone[0] + 4]
        step = draw(st.sampled_from(choices))
        undone.remove(step)
        used.append(step)
    return used


def order_of(steps: list[int]) -> Order:
    order = Order()
    for step in steps:
        order.offer(steps[0])
        order.steps = order.offer(step)
    return order


@given(windowed(), st.data())
def test_text_brings_an_order_back_after_any_step(used: list[int], data: st.DataObject) -> None:
    order = order_of(used)
    steps = data.draw(st.integers(0, len(used)))
    assert order.used(steps) == used[:steps]
    again = Order.read(order.spell(steps), steps=steps)
    assert (again.steps, again.used(steps)) == (steps, used[:steps])
    for step in used[steps:]:
        again.offer(used[-1])
        again.steps = again.offer(step)
    assert again.used(len(used)) == used
    assert again.spell(len(used)) == order.spell(len(used))
    assert order.has_gaps(steps) == (set(used[:steps]) != set(range(steps)))


@given(windowed())
def test_what_remains_is_all_that_was_not_used_in_plan_order(used: list[int]) -> None:
    order = order_of(used)
    remaining = list(order.remaining(40))
    assert remaining == sorted(remaining)
    assert sorted([*used, *remaining]) == list(range(40))
    assert list(islice(order.remaining(None), 5)) == [*remaining, *range(40, 45)][:5]


def test_plan_order_is_one_integer() -> None:
    order = order_of(list(range(1000)))
    assert order.spell(1000) is None
    assert order.used(7) == Order.read(None, steps=7).used(7) == list(range(7))
    assert Order.read(None, steps=7).used(9) == list(range(9)), "a strict run's future is known"
    with pytest.raises(ValueError, match="3 steps are asked for, 2 were delivered"):
        order_of([1, 0]).used(3)


def test_a_long_run_s_order_is_short() -> None:
    order = order_of([step ^ 1 for step in range(100_000)])
    assert len(order.spell(100_000) or "") < 2000


@pytest.mark.parametrize(
    ("text", "steps"), [("?", 2), (7, 2), (order_of([1, 0]).spell(2), 3), ("", 1), (order_of([1, 1, 1]).spell(3), 3)]
)
def test_text_that_is_no_order_of_so_many_steps_is_refused(text: object, steps: int) -> None:
    with pytest.raises(BadInput, match="resume: order is"):
        Order.read(text, steps=steps)


def test_orders_by_name() -> None:
    assert [window_of(order, world_size=1) for order in ("strict", "window:1", "window:16")] == [1, 1, 16]
    assert [window_of(order, world_size=8) for order in ("strict", "window:1")] == [1, 1]
    for order in ("", "window", "window:0", "window:-1", "any", "strict "):
        with pytest.raises(BadInput, match="wanted 'strict' or 'window:W'"):
            window_of(order, world_size=1)


@pytest.mark.parametrize("world_size", [2, 512])
def test_ranks_that_would_overtake_by_themselves_are_refused(world_size: int) -> None:
    with pytest.raises(
        BadInput, match=f"order is 'window:4' and world_size is {world_size}, wanted 'strict'"
    ) as refused:
        window_of("window:4", world_size=world_size)
    assert "\n" not in str(refused.value)
