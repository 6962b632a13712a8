"""States of real runs as their metrics pages told them: how they are written and read.

Made by `python -m tests.integration.record_top_states`, which says what each run was.
"""

from __future__ import annotations

from pathlib import Path

from framefeed.cli.top.measure import Snapshot
from framefeed.cli.top.metrics_page import Page, parse_page

FOLDER = Path(__file__).parent / "recorded"
_MARK = "## "


def page_heading(url: str, at_s: float, trouble: str = "") -> str:
    """The line before what a page said at a time, or why it said nothing."""
    return f"{_MARK}{at_s:.3f} {url} {trouble}".rstrip()


def looks(name: str) -> list[Snapshot]:
    """The recorded snapshots of a state, in order of time."""
    times: dict[float, list[Page]] = {}
    for part in (FOLDER / f"{name}.txt").read_text().split(_MARK)[1:]:
        heading, _, text = part.partition("\n")
        at_s, url, *trouble = heading.split(" ", 2)
        when_s = float(at_s)
        page = Page(url=url, at_s=when_s, trouble=trouble[0]) if trouble else parse_page(url, text, at_s=when_s)
        times.setdefault(when_s, []).append(page)
    return [Snapshot(pages=tuple(pages)) for _, pages in sorted(times.items())]
