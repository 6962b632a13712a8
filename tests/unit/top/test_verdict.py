"""The verdict: on states of real runs that had one trouble each, on others made by hand, and for any numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.cli.top.history import History, View
from framefeed.cli.top.measure import measure
from framefeed.cli.top.metrics_page import LARGEST
from framefeed.cli.top.state import Rank, Server, State
from framefeed.cli.top.verdict import judge, sockets_missing
from tests.unit.top.recorded_states import FOLDER, looks

CAUSES = ("first_batch", "plan", "client_limit", "no_server", "network", "front", "server_queue", "read", "decode")
KINDS = {
    "client_bound": ("client_bound", "client_limit"),
    "dead_server": ("faulty_server", "offline; the rest cannot do all"),
    "decode_bound": ("decode_bound", "1 more socket gives ≈ 0 starvation"),
    "front_bound": ("front_bound", "works 95 % of the time"),
    "network_bound": ("network_bound", "receives 2.39 MB/s"),
    "no_server": ("no_server", "offline"),
    "slow_server": ("faulty_server", "takes 3.02 s a clip"),
    "storage_bound": ("storage_bound", "p99 995 ms"),
    "straggler": ("straggler", "rank 2 alone is starved, by plan"),
    "trainer_bound": ("trainer_bound", "servers could give 71 clips/s"),
}


def server(name: str = "a", **fields: object) -> Server:
    full = {"paged": True, "state": "ready", "seen_state": "up", "clips_s": 100.0, "ok_s": 100.0, "sockets": 1}
    return Server(name=name, **{**full, "threads": 8.0, "busy_threads": 8.0, "clip_s": 0.08, **fields})  # type: ignore[arg-type]


def rank(name: str = "0", clips_s: float = 100.0, **waits: float) -> Rank:
    return Rank(name=name, clips_s=clips_s, waits=waits)


def view(name: str) -> View:
    history = History()
    return [history.add(look) for look in looks(name)][-1]


def test_every_recorded_state_is_judged() -> None:
    assert sorted(KINDS) == sorted(path.stem for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", KINDS)
def test_the_verdict_of_a_run_with_one_trouble(name: str) -> None:
    before, after = looks(name)
    verdict = judge(measure(before, after))
    kind, said = KINDS[name]
    assert verdict.kind == kind
    assert said in f"{verdict.line}; {verdict.reason}"
    assert len(verdict.line) <= 80
    assert view(name).verdict == verdict


@pytest.mark.parametrize("name", KINDS)
def test_what_is_shown_before_a_second_look_is_no_verdict(name: str) -> None:
    first = History().add(looks(name)[0])
    assert (first.verdict.kind, first.state.ranks, first.events) == ("unknown", (), ())


@pytest.mark.parametrize(
    ("name", "of_ranks_only"),
    [
        ("decode_bound", "decode-bound: 1 more server like these"),
        ("storage_bound", "storage-bound: faster storage"),
        ("network_bound", "network-bound"),
        ("no_server", "no server: none takes requests"),
    ],
)
def test_the_trainers_page_alone_says_as_much_as_it_can(name: str, of_ranks_only: str) -> None:
    before, after = (
        type(look)(pages=tuple(page for page in look.pages if "trainer" in page.url)) for look in looks(name)
    )
    state = measure(before, after)
    assert state.could_clips_s is None
    assert of_ranks_only in judge(state).line


def test_two_sockets_short() -> None:
    """Two sockets that do 200 clips/s together, and trainers that would take 400."""
    state = State(ranks=(rank(decode=0.3, server_queue=0.2, clips_s=200.0),), servers=(server("a"), server("b")))
    verdict = judge(state)
    assert verdict.line == "decode-bound: 2 more sockets give ≈ 0 starvation"
    assert verdict.numbers["demand_clips_s"] == 400.0
    assert verdict.numbers["could_clips_s"] == 200.0


@given(
    clips_s=st.floats(0.1, 1e6), starvation=st.floats(0.06, 0.94), sockets=st.integers(1, 64), supply=st.floats(0.5, 1)
)
def test_so_many_sockets_are_enough_and_one_less_is_not(
    clips_s: float, starvation: float, sockets: int, supply: float
) -> None:
    each = clips_s * supply / sockets
    servers = tuple(server(f"s{n}", clips_s=each, busy_threads=8.0) for n in range(sockets))
    state = State(ranks=(rank(clips_s=clips_s, decode=starvation),), servers=servers)
    more = sockets_missing(state)
    assert (sockets + more) * each >= state.demand_clips_s * (1 - 1e-9)
    assert more == 1 or (sockets + more - 1) * each < state.demand_clips_s * (1 + 1e-9)


def test_a_rank_that_hardly_works_wants_at_least_so_much() -> None:
    verdict = judge(State(ranks=(rank(decode=0.99, clips_s=10.0),), servers=(server(),)))
    assert verdict.line.startswith("decode-bound: at least ")


def test_threads_that_idle_are_not_what_is_missing() -> None:
    verdict = judge(State(ranks=(rank(decode=0.5),), servers=(server(busy_threads=2.0),)))
    assert verdict.line.startswith("decode-bound by single clips, threads idle")


def test_threads_that_are_full_of_reading_are_storage() -> None:
    """The wait is for a turn; what the threads do meanwhile is to read."""
    slow = server(read_share=0.9, storage_mean_s=0.2, storage_p99_s=1.5)
    verdict = judge(State(ranks=(rank(server_queue=0.5),), servers=(slow,)))
    assert verdict.kind == "storage_bound"
    assert "p99 1.5 s" in verdict.reason


def test_the_worst_rank_comes_before_the_mean() -> None:
    calm = tuple(rank(str(n), decode=0.01) for n in range(1, 8))
    verdict = judge(State(ranks=(rank("5", network=0.4), *calm), servers=(server(),)))
    assert verdict.kind == "straggler"
    assert "rank 5 alone is starved, by network" in verdict.line


def test_all_ranks_that_wait_for_full_servers_are_no_stragglers() -> None:
    """Who comes last waits most; there is too little for all."""
    ranks = (rank("0", decode=0.6), rank("1", decode=0.1), rank("2", decode=0.1))
    assert judge(State(ranks=ranks, servers=(server(),))).kind == "decode_bound"


@pytest.mark.parametrize("state", ["offline", "shunned", "draining"])
def test_a_server_that_is_missing_is_named_where_it_would_be_enough(state: str) -> None:
    gone = server("tcp://b:5", seen_state=state, paged=False, clips_s=0.0, threads=0.0, busy_threads=0.0)
    half = State(ranks=(rank(decode=0.4),), servers=(server("a"), gone))
    assert judge(half).line == f"faulty server: b:5 {state}; the rest cannot do all"
    tenth = State(ranks=(rank(decode=0.9),), servers=(server("a"), gone))
    assert judge(tenth).kind == "decode_bound"


def test_a_server_that_fails_is_named() -> None:
    bad = server("tcp://b:5", ok_s=10.0, failed_s=30.0)
    verdict = judge(State(ranks=(rank(reorder=0.3),), servers=(server("a"), bad, server("c"))))
    assert verdict.line == "faulty server: b:5 fails 75 % of its requests"


def test_servers_that_all_fail_alike_are_no_single_fault() -> None:
    bad = [server(name, ok_s=10.0, failed_s=10.0) for name in "abc"]
    assert judge(State(ranks=(rank(decode=0.3),), servers=tuple(bad))).kind == "decode_bound"


def test_the_first_batch_is_no_starvation() -> None:
    verdict = judge(State(ranks=(rank(first_batch=1.0, clips_s=0.0),), servers=(server(),)))
    assert verdict.line == "starting: rank 0 waits for its first batch"


def test_a_trainer_that_stands_is_idle_and_not_fed_well() -> None:
    assert judge(State(over_s=2.0, ranks=(rank(clips_s=0.0),))).kind == "idle"


def test_no_trainer_is_no_verdict_and_says_which_pages_are_silent() -> None:
    verdict = judge(State(silent=(("http://h:1/metrics", "timed out"),)))
    assert (verdict.kind, verdict.reason) == ("unknown", "http://h:1/metrics: timed out")


NUMBERS = st.floats(0, LARGEST)
SERVERS = st.builds(
    Server,
    name=st.text(max_size=8),
    paged=st.booleans(),
    state=st.sampled_from(("", "ready", "draining")),
    seen_state=st.sampled_from(("", "up", "trial", "offline", "shunned")),
    sockets=st.integers(0, 1000),
    **{  # type: ignore[arg-type]
        name: NUMBERS for name, kind in Server.__annotations__.items() if kind == "float"
    },
)
RANKS = st.builds(
    Rank,
    name=st.text(max_size=4),
    waits=st.dictionaries(st.sampled_from((*CAUSES, "reorder", "copy", "another")), NUMBERS),
    **{name: NUMBERS for name, kind in Rank.__annotations__.items() if kind == "float"},  # type: ignore[arg-type]
)


@given(
    ranks=st.lists(RANKS, max_size=5),
    servers=st.lists(SERVERS, max_size=5),
    silent=st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=2),
    over_s=NUMBERS,
)
def test_any_numbers_have_a_verdict_in_finite_numbers(
    ranks: list[Rank], servers: list[Server], silent: list[tuple[str, str]], over_s: float
) -> None:
    state = State(over_s=over_s, ranks=tuple(ranks), servers=tuple(servers), silent=tuple(silent))
    verdict = judge(state)
    assert verdict.line
    assert all(math.isfinite(number) for number in verdict.numbers.values())


def test_servers_whose_page_is_not_read_are_taken_for_ones_like_the_others() -> None:
    """Else one of four pages would stand for all that the fleet gives, and three sockets more be asked for."""
    others = [
        server(name, paged=False, state="", clips_s=0.0, sockets=0, threads=0.0, busy_threads=0.0) for name in "bcd"
    ]
    full = State(ranks=(rank(clips_s=400.0, decode=0.5),), servers=(server(), *others))
    assert full.could_clips_s == pytest.approx(400.0)
    assert sockets_missing(full) == 4
    assert "3 servers whose page is not read" in judge(full).reason
    gone = State(ranks=full.ranks, servers=(server(), server("b", paged=False, seen_state="offline", threads=0.0)))
    assert gone.could_clips_s == pytest.approx(100.0)


def test_a_thousand_silent_pages_are_a_few_in_one_line() -> None:
    silent = tuple((f"http://h{n}:9555/metrics", "does not answer: timed out") for n in range(1000))
    reason = judge(State(silent=silent)).reason
    assert "h0:9555" in reason
    assert reason.endswith("and 997 others")
