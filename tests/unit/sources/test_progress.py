"""Long work tells how far it is, on a terminal and in a log, and is written seldom enough."""

from __future__ import annotations

import io

from rich.console import Console

from decode_server.sources.pace import EVERY_S, Pace
from decode_server.sources.progress import LINE_EVERY_S, WorkProgress


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _progress(out: io.StringIO, clock: _Clock, *, total_bytes: int = 0) -> WorkProgress:
    console = Console(file=out, width=80)
    return WorkProgress("chunking", total=4, total_bytes=total_bytes, console=console, clock=clock)


def test_a_log_gets_a_line_now_and_then() -> None:
    out, clock = io.StringIO(), _Clock()
    with _progress(out, clock, total_bytes=4_000_000_000) as progress:
        for read_gb in (0.5, 1.0, 1.5, 2.0):
            clock.now_s += LINE_EVERY_S / 2
            progress.read(int(read_gb * 1e9))
        progress.one_done()
    assert out.getvalue().splitlines() == [
        "chunking 0 of 4 files, 1 GB of 4 GB, about 2 min left",
        "chunking 0 of 4 files, 2 GB of 4 GB, about 1 min left",
    ]


def test_where_sizes_are_not_known_files_count() -> None:
    out, clock = io.StringIO(), _Clock()
    with _progress(out, clock) as progress:
        clock.now_s = 120.0
        progress.one_done()
    assert out.getvalue() == "chunking 1 of 4 files, about 6 min left\n"


def test_short_work_says_nothing() -> None:
    out = io.StringIO()
    with _progress(out, _Clock()) as progress:
        for _ in range(4):
            progress.one_done()
    assert out.getvalue() == ""


def test_writes_take_a_small_share_of_the_time() -> None:
    pace, now_s, spent_s = Pace(now_s=0.0), 0.0, 0.0
    while now_s < 10_000:
        now_s += 1.0
        if pace.is_due(now_s):
            pace.wrote(began_s=now_s, ended_s=now_s + 10.0)
            now_s, spent_s = now_s + 10.0, spent_s + 10.0
    assert 0.02 * now_s < spent_s < 0.06 * now_s
    quick = Pace(now_s=0.0)
    assert not quick.is_due(EVERY_S - 1)
    assert quick.is_due(EVERY_S)
