"""The verb `top`: whether GPUs starve, of which rank, by what, and what would help; from metrics pages alone.

The live screen needs textual (the extra `top`); printing once, as text or JSON, does not.
"""

from __future__ import annotations

import select
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from framefeed.cli.stop_signals import StopSignals
from framefeed.cli.top.draw import draw_below, draw_header
from framefeed.cli.top.history import History, View
from framefeed.cli.top.pages import Pages
from framefeed.cli.top.report import report
from framefeed.errors import BadInput, FramefeedError

_LEAST_EVERY_S, _MOST_EVERY_S = 0.2, 3600.0
_SCREEN = ("stdin", "stdout", "stderr")  # textual reads keys of the first and draws on the last


@dataclass(frozen=True, kw_only=True)
class Top:
    """Say whether GPUs starve, which rank, by what, and what helps."""

    urls: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Metrics pages of a trainer's ranks, and of servers: HOST:PORT or http://HOST:PORT/metrics."""
    registry: Path | None = None
    """Folder that servers were started with, as --registry: their pages are watched as well."""
    every_s: float = 2.0
    """Look so often."""
    page_s: float = 2.0
    """A page may take so long."""
    once: bool = False
    """Look twice, --every-s apart, print what that says and end; needs no terminal."""
    json: bool = False
    """As --once, as JSON."""

    def run(self) -> None:
        """Watch until q or Ctrl-C, or print once. Raises BadInput for options that cannot be used, FramefeedError if
        --once read no page twice.
        """
        if not _LEAST_EVERY_S <= self.every_s <= _MOST_EVERY_S:
            raise BadInput(f"--every-s is {self.every_s:g}, wanted {_LEAST_EVERY_S:g} to {_MOST_EVERY_S:g}")
        if not 0 < self.page_s <= _MOST_EVERY_S:
            raise BadInput(f"--page-s is {self.page_s:g}, wanted more than 0 and at most {_MOST_EVERY_S:g}")
        pages = Pages(self.urls, registry=self.registry, limit_s=self.page_s)
        try:
            if self.once or self.json:
                self._print(pages)
            else:
                watch(pages, every_s=self.every_s)
        finally:
            pages.close()

    def _print(self, pages: Pages) -> None:
        view = self._look_twice(pages)
        if view is None:
            return
        read = bool(view.state.ranks or view.state.servers)
        if self.json:
            print(report(view))
        else:
            console = Console(highlight=False)
            console.print(draw_header(view))
            if read:
                console.print()
                console.print(draw_below(view))
        if not read:
            raise FramefeedError(view.verdict.reason)

    def _look_twice(self, pages: Pages) -> View | None:
        """None after a stop signal."""
        history = History()
        with StopSignals() as stops:
            history.add(pages.look())
            select.select([stops], [], [], self.every_s)
            return None if stops.last else history.add(pages.look())


def watch(pages: Pages, *, every_s: float) -> None:
    """Show the live screen until it is left. Raises BadInput without textual, or a terminal to show it on."""
    try:
        from framefeed.cli.top.screen import Screen  # noqa: PLC0415  # an extra brings what it imports
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        hint = "pip install 'framefeed[top]'; --once prints the same once, --json as JSON"
        raise BadInput(f"the live screen needs the package 'textual': {hint}") from None
    lacking = [name for name in _SCREEN if not getattr(sys, f"__{name}__").isatty()]
    if lacking:
        raise BadInput(
            f"the live screen needs a terminal, {lacking[0]} is none; --once prints the same once, --json as JSON"
        )
    Screen(pages.look, every_s=every_s).run()
