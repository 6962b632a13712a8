"""The live screen, driven by textual's pilot at 80 x 24."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("textual", reason="textual is in the extra [top]")

from textual.widgets import Static

from framefeed.cli.top.measure import Snapshot
from framefeed.cli.top.screen import Screen
from tests.unit.top.recorded_states import looks


def shown(app: Screen, name: str) -> str:
    widget = app.query_one(name, Static)
    lines = widget.render_lines(widget.size.region)
    return "\n".join(line.text for line in lines)


async def watch(seen: Iterator[Snapshot]) -> list[str]:
    """What the header was after each of three looks; then q."""
    app = Screen(lambda: next(seen), every_s=3600.0)
    headers = []
    async with app.run_test(size=(80, 24)) as pilot:
        for _ in range(3):
            await app.workers.wait_for_complete()
            await pilot.pause()
            headers.append(shown(app, "#header"))
            await pilot.press("r")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert app.query_one("#header").size.height + 4 <= 24, "servers and events have a place below"
        assert "127.0.0.1:41103" in shown(app, "#servers")
        await pilot.press("q")
    assert app.return_code == 0
    assert not app.is_running
    return headers


def test_the_verdict_is_shown_a_new_look_changes_the_numbers_and_q_quits() -> None:
    before, after = looks("decode_bound")
    later = Snapshot(
        pages=tuple(type(page)(url=page.url, at_s=page.at_s + 6.0, samples=page.samples) for page in after.pages)
    )
    first, second, third = asyncio.run(watch(iter([before, after, later, later])))
    assert "no trainer's page was read twice" in first
    assert second.startswith("decode-bound: 1 more socket gives ≈ 0 starvation")
    assert "got 7.8 clips/s" in second
    assert "got 3.9 clips/s" in third
