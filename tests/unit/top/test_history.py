"""The last looks: what is over a window, what is of each look, and what happened between them."""

from __future__ import annotations

from framefeed.cli.top.events import MOST_EVENTS, what_happened
from framefeed.cli.top.history import KEPT_EVENTS, SPARK, WINDOW, History, View
from framefeed.cli.top.measure import Snapshot
from framefeed.cli.top.metrics_page import Page, parse_page

URL = "http://t:9600/metrics"


def look(at_s: float, wait_s: float = 0.0, more: str = "") -> Snapshot:
    text = f'framefeed_trainer_data_wait_seconds_total{{rank="0",cause="read"}} {wait_s}\n{more}'
    return Snapshot(pages=(parse_page(URL, text, at_s=at_s),))


def state(server: str, name: str, *, rank: int = 0) -> str:
    return f'framefeed_client_server_state{{rank="{rank}",server="{server}",state="{name}"}} 1\n'


def texts(before: str, after: str) -> list[str]:
    return [event.text for event in what_happened(look(0.0, more=before), look(1.0, more=after))]


def test_the_state_is_over_the_window_and_sparks_are_of_each_look() -> None:
    history = History()
    waits_s = [0.0, 1.0, 1.0, 1.5, 1.5, 1.5, 2.5]
    views = [history.add(look(float(at), wait_s)) for at, wait_s in enumerate(waits_s)]
    assert views[-1].sparks == {"read": (1.0, 0.0, 0.5, 0.0, 0.0, 1.0)}
    assert views[-1].state.over_s == WINDOW - 1
    assert views[-1].state.ranks[0].starvation == (2.5 - 1.0) / (WINDOW - 1)


def test_it_keeps_no_more_than_it_shows() -> None:
    history = History()
    view: View | None = None
    for at in range(200):
        view = history.add(look(float(at), float(at), more=f"framefeed_client_stalls_total {at}\n"))
    assert view is not None
    assert len(view.sparks["read"]) == SPARK
    assert len(view.events) == KEPT_EVENTS
    assert [event.at_s for event in view.events[:2]] == [199.0, 198.0]


def test_a_page_that_was_silent_in_between_is_measured_over_its_answers() -> None:
    history = History()
    history.add(look(0.0, 0.0))
    silent = history.add(Snapshot(pages=(Page(url=URL, at_s=1.0, trouble="timed out"),)))
    back = history.add(look(2.0, 1.0))
    assert (silent.state.silent, silent.verdict.kind) == (((URL, "timed out"),), "unknown")
    assert back.state.ranks[0].starvation == 0.5
    assert [event.text for event in back.events] == [f"{URL} answers again", f"{URL} answers no more: timed out"]


def test_servers_that_join_leave_and_change_are_one_line_for_all_ranks() -> None:
    before = state("a", "up") + state("a", "up", rank=1) + state("b", "up") + state("d", "up")
    after = state("a", "offline") + state("a", "offline", rank=1) + state("c", "probing") + state("d", "up")
    assert texts(before, after) == [
        "a is offline, was up (2 ranks)",
        "b left, was up (rank 0)",
        "c joined, probing (rank 0)",
    ]


def test_counts_are_told_by_reason_when_they_grow() -> None:
    before = 'framefeed_client_retries_total{rank="0",reason="busy"} 3\n'
    after = (
        'framefeed_client_retries_total{rank="0",reason="busy"} 5\n'
        'framefeed_trainer_quarantined_samples_total{rank="0",reason="corrupt_media"} 1\n'
        'framefeed_client_hedges_total{rank="0",winner="hedge"} 4\n'
        "framefeed_server_worker_restarts_total 0\n"
    )
    assert texts(before, after) == [
        "1 samples quarantined corrupt_media",
        "2 clips asked for again busy",
        "4 second requests over, the clip by hedge",
    ]


def test_a_server_says_that_it_drains() -> None:
    before, after = (f'framefeed_server_state{{framefeed_server_state="{s}"}} 1\n' for s in ("ready", "draining"))
    assert texts(before, after) == [f"{URL} is draining, was ready"]


def test_a_flood_of_events_is_bounded() -> None:
    assert len(texts("", "".join(state(f"s{n}", "up") for n in range(1000)))) == MOST_EVENTS
