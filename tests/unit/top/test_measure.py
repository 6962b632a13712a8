"""Two looks as a state: rates, counters that began again, servers by two names; every metric read exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import framefeed.cli.top
from framefeed.cli.top.change import Change
from framefeed.cli.top.measure import Snapshot, measure
from framefeed.cli.top.metrics_page import parse_page
from framefeed.cli.top.state import State
from tests.unit.deploy.test_metrics_are_shown import EXPORTED

STATES = ("up", "offline", "up")
WAIT = "framefeed_trainer_data_wait_seconds_total"


def look(at_s: float, **pages: str) -> Snapshot:
    return Snapshot(
        pages=tuple(parse_page(f"http://{host}:9/metrics", text, at_s=at_s) for host, text in pages.items())
    )


def trainer(wait_s: float, clips: float, *, rank: int = 0, more: str = "") -> str:
    lines = f'{WAIT}{{rank="{rank}",cause="decode"}} {wait_s}\nframefeed_trainer_clips_total{{rank="{rank}"}} {clips}\n'
    return lines + more


def server(clips: float, busy_s: float, *, address: str = "tcp://0.0.0.0:5555") -> str:
    return (
        f'framefeed_server_clips_total{{socket="0",codec="h264"}} {clips}\nframefeed_server_threads{{socket="0"}} 4\n'
        f'framefeed_server_thread_busy_seconds_total{{socket="0"}} {busy_s}\n'
        f'framefeed_server_clients{{address="{address}"}} 1\n'
        'framefeed_server_state{framefeed_server_state="ready"} 1\n'
    )


def seen(name: str, state: str = "up", *, rank: int = 0) -> str:
    return f'framefeed_client_server_state{{rank="{rank}",server="{name}",state="{state}"}} 1\n'


def test_demand_got_and_could() -> None:
    before = look(10.0, t=trainer(100.0, 1000.0), s=server(500.0, 50.0))
    after = look(14.0, t=trainer(102.0, 1040.0), s=server(540.0, 58.0))
    state = measure(before, after)
    assert (state.ranks[0].starvation, state.got_clips_s, state.demand_clips_s) == (0.5, 10.0, 20.0)
    assert (state.busy_share, state.could_clips_s, state.sockets) == (0.5, 20.0, 1)


def test_a_counter_that_began_again_has_what_it_counted_since() -> None:
    state = measure(look(0.0, t=trainer(100.0, 1000.0)), look(10.0, t=trainer(1.0, 50.0)))
    assert (state.ranks[0].starvation, state.got_clips_s) == (0.1, 5.0)


def test_pages_have_their_own_times() -> None:
    """One that takes long to answer covers more time than the others."""
    before = look(0.0, a=trainer(0, 0), b=trainer(0, 0, rank=1))
    late = Snapshot(pages=(*look(1.0, a=trainer(0.5, 8)).pages, *look(2.0, b=trainer(0.5, 8, rank=1)).pages))
    assert [(rank.name, rank.starvation, rank.clips_s) for rank in measure(before, late).ranks] == [
        ("0", 0.5, 8.0),
        ("1", 0.25, 4.0),
    ]


def test_a_page_that_is_new_is_not_counted_and_one_that_fell_silent_is_told() -> None:
    before, after = look(0.0, t=trainer(0, 0)), look(1.0, t="", new=trainer(50, 50))
    assert measure(before, after) == State(silent=(("http://t:9/metrics", "its page has no framefeed metric"),))


def test_ranks_of_two_runs_are_told_apart() -> None:
    before, after = (look(s, a=trainer(0, s), b=trainer(0, 2 * s)) for s in (0.0, 1.0))
    assert [rank.name for rank in measure(before, after).ranks] == ["0", "0 of run 2"]


@pytest.mark.parametrize(
    ("address", "name", "same"),
    [
        ("tcp://0.0.0.0:5555", "tcp://s:5555", True),
        ("tcp://10.0.0.6:5555", "tcp://10.0.0.6:5555", True),
        ("shm://@decode0", "shm://@decode0", True),
        ("tcp://0.0.0.0:5555", "tcp://other:5555", False),
        ("tcp://0.0.0.0:5555", "grpc://s:5555", False),
        ("tcp://0.0.0.0:5555", "tcp://s:5556", False),
        ("tcp://0.0.0.0:x", "tcp://s:y", False),
    ],
)
def test_a_server_is_one_line_by_its_page_and_by_the_ranks(address: str, name: str, same: bool) -> None:
    before, after = (look(s, t=trainer(0, s, more=seen(name)), s=server(s, s, address=address)) for s in (0.0, 1.0))
    servers = measure(before, after).servers
    assert len(servers) == (1 if same else 2)
    assert servers[0].seen_state == "up" if same else {one.name for one in servers} == {"s:9", name}


def test_of_what_ranks_see_the_worst_counts() -> None:
    pages = {f"t{n}": trainer(0, 0, rank=n, more=seen("tcp://s:5", state, rank=n)) for n, state in enumerate(STATES)}
    (one,) = measure(look(0.0, **pages), look(1.0, **pages)).servers
    assert (one.seen_state, one.up) == ("offline", False)


def test_a_quantile_is_what_prometheus_says() -> None:
    """histogram_quantile(0.99) of 100 values up to 0.1 s, 90 of them up to 0.01 s: 0.09 s, within the last bucket."""
    text = 'framefeed_h_bucket{le="0.01"} 90\nframefeed_h_bucket{le="0.1"} 100\nframefeed_h_bucket{le="+Inf"} 100\n'
    zero = re.sub(r"\d+$", "0", text, flags=re.MULTILINE)
    change = Change(parse_page("u", zero, at_s=0.0), parse_page("u", text, at_s=1.0), over_s=1.0)
    assert change.quantile("framefeed_h", 0.99) == pytest.approx(0.091)
    assert change.quantile("framefeed_none", 0.99) == 0.0
    assert Change(change.page, change.page, over_s=1.0).quantile("framefeed_h", 0.99) == 0.0


@given(st.lists(st.tuples(st.sampled_from(["0.1", "1", "+Inf", "x", "nan", "1e400"]), st.floats(0, 1e15)), max_size=6))
def test_any_buckets_have_a_quantile(buckets: list[tuple[str, float]]) -> None:
    text = "".join(f'framefeed_h_bucket{{le="{le}",n="{n}"}} {count}\n' for n, (le, count) in enumerate(buckets))
    page = parse_page("u", text, at_s=1.0)
    change = Change(parse_page("u", "", at_s=0.0), page, over_s=1.0)
    assert 0.0 <= change.quantile("framefeed_h", 0.99) <= 1.0


def test_every_metric_that_is_read_is_exported() -> None:
    folder = Path(framefeed.cli.top.__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    text = re.sub(r"\{_(CLIENT|SERVER|TRAINER)\}", lambda m: f"framefeed_{m[1].lower()}_", text)
    names = {name for name in re.findall(r"framefeed_[a-z0-9_]+", text) if not name.endswith("_")}
    names |= {name + end for name in names for end in ("_count",) if name + end in EXPORTED}
    assert len(names & EXPORTED.keys()) > 30
    assert {name for name in names - EXPORTED.keys() if f"{name}_count" not in EXPORTED} == set()
