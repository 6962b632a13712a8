"""What happened between two looks: servers that came, went or were refused, retries, hedges, quarantine. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from framefeed.cli.top.change import Change
from framefeed.cli.top.measure import SEEN_STATE, SERVER_STATE, Snapshot
from framefeed.cli.top.metrics_page import Page

MOST_EVENTS = 50  # of one look
# Counters whose increase is an event: name, the label to tell apart (summed over all else), and what to say.
_COUNTED = (
    ("framefeed_trainer_quarantined_samples_total", "reason", "samples quarantined"),
    ("framefeed_trainer_stand_ins_total", "", "clips delivered in the place of others"),
    ("framefeed_trainer_skipped_steps_total", "", "steps that were not finite"),
    ("framefeed_client_stalls_total", "", "standstills"),
    ("framefeed_client_shunned_servers_total", "reason", "servers refused"),
    ("framefeed_client_retries_total", "reason", "clips asked for again"),
    ("framefeed_client_hedges_total", "winner", "second requests over, the clip by"),
    ("framefeed_server_worker_restarts_total", "", "workers started again"),
    ("framefeed_server_gateway_restarts_total", "", "gateways started again"),
    ("framefeed_server_storage_faults_total", "kind", "reads of storage failed"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line, and when it was seen."""

    at_s: float
    text: str


def what_happened(before: Snapshot, after: Snapshot) -> list[Event]:
    """The events between two looks: what became of servers first, then counts."""
    then = {page.url: page for page in before.pages}
    pairs = [(then[page.url], page) for page in after.pages if page.url in then]
    new = [f"{page.url} is watched from now on" for page in after.pages if page.url not in then]
    both = [(old, page) for old, page in pairs if not old.trouble and not page.trouble]
    texts = [*_answers(pairs), *_states(both), *_seen(both), *(new if then else []), *_counts(both)]
    return [Event(at_s=after.at_s, text=text) for text in texts[:MOST_EVENTS]]


def _answers(pairs: Iterable[tuple[Page, Page]]) -> Iterator[str]:
    for old, page in pairs:
        if page.trouble and not old.trouble:
            yield f"{page.url} answers no more: {page.trouble}"
        elif old.trouble and not page.trouble:
            yield f"{page.url} answers again"


def _states(pairs: Iterable[tuple[Page, Page]]) -> Iterator[str]:
    """By the servers' own pages."""
    for old, page in pairs:
        was, now = _now(old), _now(page)
        if was != now:
            yield f"{page.url} is {now or 'in no state'}, was {was or 'in none'}"


def _now(page: Page) -> str:
    return next((labels.get(SERVER_STATE, "") for labels, value in page.values(SERVER_STATE) if value), "")


def _seen(pairs: Iterable[tuple[Page, Page]]) -> Iterator[str]:
    """By the trainers' pages: what several ranks see alike is one line."""
    ranks: dict[str, list[str]] = defaultdict(list)
    for old, page in pairs:
        was, now = _seen_states(old), _seen_states(page)
        for key in sorted(was.keys() | now.keys()):
            rank, server = key
            if key not in was:
                ranks[f"{server} joined, {now[key]}"].append(rank)
            elif key not in now:
                ranks[f"{server} left, was {was[key]}"].append(rank)
            elif was[key] != now[key]:
                ranks[f"{server} is {now[key]}, was {was[key]}"].append(rank)
    for text, by in ranks.items():
        yield f"{text} (rank {by[0]})" if len(by) == 1 else f"{text} ({len(by)} ranks)"


def _seen_states(page: Page) -> dict[tuple[str, str], str]:
    return {
        (labels.get("rank", ""), labels.get("server", "")): labels.get("state", "")
        for labels, value in page.values(SEEN_STATE)
        if value
    }


def _counts(pairs: Iterable[tuple[Page, Page]]) -> Iterator[str]:
    changes = [Change(old, page, over_s=1.0) for old, page in pairs]
    for name, label, text in _COUNTED:
        sums: dict[str, float] = defaultdict(float)
        for change in changes:
            for value, increase in change.rates_by(name, label).items():
                sums[value] += increase
        for value, increase in sorted(sums.items()):
            if increase >= 1.0:
                yield f"{increase:.0f} {text}{' ' + value if value else ''}"
