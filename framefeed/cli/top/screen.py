"""The live screen, by textual: looks again and again in a thread, and shows the view. It reads and judges nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Static

from framefeed.cli.top.draw import draw_below, draw_header
from framefeed.cli.top.history import History, View
from framefeed.cli.top.measure import Snapshot


class Screen(App[None]):
    """Shows what `look` sees, every so often, until q. `look` is called in one thread at a time, and may block."""

    TITLE = "framefeed top"
    ENABLE_COMMAND_PALETTE = False
    CSS = "#below { height: 1fr; margin-top: 1; } Static { height: auto; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("r", "look", "Look now"),
    ]

    def __init__(self, look: Callable[[], Snapshot], *, every_s: float) -> None:
        super().__init__()
        self._look, self._every_s = look, every_s
        self._history = History()
        self._looking = False

    def compose(self) -> ComposeResult:
        """The header, and what scrolls below it."""
        yield Static("looking …", id="header")
        with VerticalScroll(id="below"):
            yield Static(id="servers")
        yield Footer()

    def on_mount(self) -> None:
        """Look now, and from now on."""
        self.action_look()
        self.set_interval(self._every_s, self.action_look)

    def action_look(self) -> None:
        """Look, unless that is being done: one that takes longer than `every_s` is not overtaken."""
        if not self._looking:
            self._looking = True
            self._look_once()

    @work(thread=True)
    def _look_once(self) -> None:
        view = self._history.add(self._look())
        self.call_from_thread(self._show, view)

    def _show(self, view: View) -> None:
        self._looking = False
        self.query_one("#header", Static).update(draw_header(view))
        self.query_one("#servers", Static).update(draw_below(view))
