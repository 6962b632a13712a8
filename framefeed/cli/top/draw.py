"""A view as rich draws it: a header that fits 80 x 24 with some servers and events, and what is below it.

What came from pages is Text and never markup. It knows the look of things, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from framefeed.cli.top.history import View
from framefeed.cli.top.numbers import count_a_second, percent, several, show_rate, show_time
from framefeed.cli.top.state import STARTING, Rank, Server, State, short_name
from framefeed.cli.top.verdict import STARVED, main_cause
from framefeed.show_value import one_line

HEADER_RANKS, HEADER_CAUSES = 4, 5
MOST_RANKS, MOST_SERVERS, MOST_EVENTS, MOST_SILENT = 64, 100, 20, 20
_COLUMNS = 80
_LEAST_SHARE = 0.0005  # less is 0 in what is shown
_SPARK = "▁▂▃▄▅▆▇█"
_GOOD, _BAD, _DIM = "bold green", "bold red", "dim"
_CALM = ("trainer_bound", "idle", "starting")


def draw_header(view: View) -> RenderableType:
    """The verdict and why, demand and supply, the ranks that wait most and what for: at most 18 lines of 80."""
    verdict, state = view.verdict, view.state
    reason = verdict.reason if state.ranks or not state.silent else ""  # that pages are silent is what is below
    parts: list[RenderableType] = [
        _line(one_line(verdict.line, chars=_COLUMNS), style=_GOOD if verdict.kind in _CALM else _BAD),
        *(_line(line, style=_DIM) for line in wrap(reason, _COLUMNS, max_lines=2, placeholder=" …")),
    ]
    if state.ranks:
        parts += [_flow(state), Text(), _ranks(state.ranks), _causes(view)]
    return Group(*parts)


def draw_below(view: View) -> RenderableType:
    """A line for each server, the last events, and the pages that do not answer."""
    state = view.state
    parts: list[RenderableType] = []
    if state.servers:
        parts += [_servers(state.servers)]
    for url, trouble in state.silent[:MOST_SILENT]:
        parts.append(_line(f"{url}: {trouble}", style="red"))
    for event in view.events[:MOST_EVENTS]:
        parts.append(_line(f"{_age(view.at_s - event.at_s):>10}  {event.text}"))
    return Group(*parts)


def spark(shares: Sequence[float]) -> str:
    """Shares of 1 as a line of bars, one each."""
    most = len(_SPARK) - 1
    return "".join(_SPARK[max(min(round(share * most), most), 0)] for share in shares)


def _flow(state: State) -> Text:
    at_least = "" if all(rank.demand_is_known for rank in state.ranks) else "≥ "
    text = f"demand {at_least}{show_rate(state.demand_clips_s)} · got {show_rate(state.got_clips_s)}"
    if state.could_clips_s is not None:
        text += f" · could {show_rate(state.could_clips_s)}"
    elif not any(server.paged for server in state.servers):
        text += " · no server's page is read"
    return _line(f"{text} · over {show_time(state.over_s)}", style="bold")


def _table(*columns: tuple[str, int]) -> Table:
    """Columns of a width, right-aligned but for those whose width is negative."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style=_DIM, pad_edge=False, show_edge=False)
    for name, width in columns:
        table.add_column(name, width=abs(width), no_wrap=True, justify="left" if width < 0 else "right")
    return table


def _ranks(ranks: Sequence[Rank]) -> RenderableType:
    columns = (
        ("rank", -10),
        ("starved", 7),
        ("now", 7),
        ("clips/s", 7),
        ("in flight", 11),
        ("held", 11),
        ("waits for", -20),
    )
    table = _table(*columns)
    for rank in ranks[:HEADER_RANKS]:
        cause, share = main_cause(rank)
        starved = rank.starvation > STARVED
        table.add_row(
            Text(rank.name),
            Text(percent(rank.starvation), style=_BAD if starved else _GOOD),
            Text(show_time(rank.waiting_s) if rank.waiting_s else "–"),
            Text(count_a_second(rank.clips_s)),
            Text(f"{rank.in_flight:.0f}/{rank.window:.0f}"),
            Text(f"{rank.held:.0f}/{rank.held_limit:.0f}"),
            Text(f"{cause} {percent(share)}" if rank.starvation >= _LEAST_SHARE else ""),
        )
    others = ranks[HEADER_RANKS:]
    if not others:
        return table
    mean = sum(rank.starvation for rank in others) / len(others)
    return Group(table, _line(f"{several(len(others), 'other rank')}: {percent(mean)} in the mean", style=_DIM))


def _causes(view: View) -> RenderableType:
    """Those with most of the worst rank's time; their history is of whichever rank waited most."""
    ranks = view.state.ranks
    worst = ranks[0]
    table = _table(("cause", -12), ("worst", 6), ("mean", 6), ("", -24))
    shown = sorted(
        (cause for cause, share in worst.waits.items() if share >= _LEAST_SHARE), key=lambda c: -worst.waits[c]
    )
    for cause in shown[:HEADER_CAUSES]:
        mean = sum(rank.waits.get(cause, 0.0) for rank in ranks) / len(ranks)
        line = spark(view.sparks.get(cause, ()))
        style = _DIM if cause == STARTING else ""
        table.add_row(Text(cause, style=style), Text(percent(worst.waits[cause])), Text(percent(mean)), Text(line))
    return table if shown else _line("no rank waits for anything", style=_DIM)


def _servers(servers: Sequence[Server]) -> RenderableType:
    columns = (("server", -26), ("state", -8), ("clips/s", 7), ("busy", 7), ("queue", 5), ("storage", 7), ("err/s", 5))
    table = _table(*columns)
    for server in servers[:MOST_SERVERS]:
        state = server.seen_state or server.state or "?"
        errors_s = max(server.errors_s, server.failed_s)
        storage_s = server.storage_p99_s or server.storage_mean_s
        unknown = not server.paged
        table.add_row(
            Text(_short(server.name), overflow="ellipsis"),
            Text(state, style="" if server.up else _BAD),
            Text(count_a_second(server.ok_s if unknown else server.clips_s)),
            Text("–" if unknown else f"{server.busy_threads:.1f}/{server.threads:.0f}"),
            Text("–" if unknown else f"{server.queue:.0f}"),
            Text(show_time(storage_s) if storage_s else "–"),
            Text(count_a_second(errors_s) if errors_s else "0", style=_BAD if errors_s else ""),
        )
    others = servers[MOST_SERVERS:]
    return Group(table, _line(f"and {several(len(others), 'other server')}", style=_DIM)) if others else table


def _short(name: str) -> str:
    return one_line(short_name(name), chars=26)


def _age(seconds: float) -> str:
    return f"{show_time(seconds)} ago" if seconds >= 0.1 else "now"


def _line(text: str, *, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
