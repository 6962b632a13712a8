"""What is drawn: the header fits 80 x 24 whatever the run is, and nothing from a page is a command."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console, RenderableType

from framefeed.cli.top.draw import draw_below, draw_header, spark
from framefeed.cli.top.history import History, View
from framefeed.cli.top.metrics_page import LARGEST
from framefeed.cli.top.report import report
from framefeed.cli.top.state import Rank, Server, State
from framefeed.cli.top.verdict import judge
from tests.unit.top.recorded_states import FOLDER, looks

RECORDED = sorted(path.stem for path in FOLDER.iterdir())


def lines(drawn: RenderableType) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80, height=24, force_terminal=False).print(drawn)
    return out.getvalue().splitlines()


def recorded(name: str) -> View:
    history = History()
    return [history.add(look) for look in looks(name)][-1]


def crowd(text: str = "x", number: float = LARGEST) -> View:
    waits = {f"{cause}{text}": 0.05 for cause in ("read", "decode", "network", "front", "plan", "copy", "reorder")}
    gauges = {"waiting_s": number, "clips_s": number, "in_flight": number, "window": number, "held": number}
    ranks = tuple(Rank(name=f"{n}{text}", waits=waits, held_limit=number, **gauges) for n in range(100))
    servers = tuple(
        Server(name=f"tcp://{n}{text}", paged=True, state=text, clips_s=number, threads=number, queue=number)
        for n in range(200)
    )
    state = State(over_s=number, ranks=ranks, servers=servers, silent=((text, text),) * 50)
    return View(at_s=0.0, state=state, verdict=judge(state), sparks=dict.fromkeys(waits, (0.05,) * 24))


@pytest.mark.parametrize("name", RECORDED)
def test_the_header_of_every_state_fits_and_leaves_room(name: str) -> None:
    view = recorded(name)
    header = lines(draw_header(view))
    assert header[0] == view.verdict.line
    assert len(header) <= 18
    assert max(map(len, header)) <= 80
    worst = view.state.ranks[0]
    assert any(line.startswith(worst.name) for line in header)


@pytest.mark.parametrize("text", ["x", "y" * 500, "数" * 100])
def test_the_header_of_a_crowd_fits(text: str) -> None:
    header = lines(draw_header(crowd(text)))
    assert len(header) <= 18
    assert "96 other ranks: 35 % in the mean" in "\n".join(header)
    assert all(len(line) <= 80 for line in lines(draw_below(crowd(text))))
    assert "and 100 other servers" in "\n".join(lines(draw_below(crowd(text))))


def test_the_header_says_demand_got_and_could_and_by_what() -> None:
    text = "\n".join(lines(draw_header(recorded("decode_bound"))))
    assert "demand 13 clips/s · got 7.8 clips/s · could 7.7 clips/s" in text
    assert "decode         36 %   36 % ▄" in text


def test_a_line_for_each_server_and_each_event() -> None:
    below = lines(draw_below(recorded("dead_server")))
    assert [line.split()[:2] for line in below[1:3]] == [["127.0.0.1:39949", "up"], ["127.0.0.1:44865", "offline"]]
    assert any("tcp://127.0.0.1:44865 is offline, was up (rank 0)" in line for line in below)
    assert any("6 clips asked for again server_lost" in line for line in below)
    assert any("answers no more" in line for line in below)


def test_what_pages_say_is_no_markup() -> None:
    text = "\n".join([*lines(draw_header(crowd("[red]"))), *lines(draw_below(crowd("[/nope]")))])
    assert "0[red]" in text
    assert "0[/nope]" in text


def test_a_spark_is_a_bar_a_look_from_none_to_all() -> None:
    assert spark((0.0, 0.5, 1.0, 7.0, -1.0)) == "▁▅██▁"


@pytest.mark.parametrize("name", RECORDED)
def test_the_json_has_what_the_screen_has(name: str) -> None:
    view = recorded(name)
    told = json.loads(report(view))
    assert set(told) == {"verdict", "totals", "ranks", "servers", "silent", "events"}
    assert told["verdict"]["line"] == view.verdict.line
    assert [rank["starvation"] for rank in told["ranks"]] == [rank.starvation for rank in view.state.ranks]
    assert told["totals"]["could_clips_s"] == view.state.could_clips_s
