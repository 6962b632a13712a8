"""Two looks at metrics pages as a State; with events.py the only one to know names of metrics. Pure.

A server's page and what the ranks call that server are brought together by the address that it listens at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from framefeed.cli.top.change import Change
from framefeed.cli.top.metrics_page import Page
from framefeed.cli.top.state import Rank, Server, State

WAITS = "framefeed_trainer_data_wait_seconds_total"
SERVER_STATE = "framefeed_server_state"
SEEN_STATE = "framefeed_client_server_state"
THREADS = "framefeed_server_threads"
PAGE_INFO = "framefeed_client_server_page_info"
_CLIENT, _SERVER, _TRAINER = "framefeed_client_", "framefeed_server_", "framefeed_trainer_"
# Outcomes of requests that say nothing against a server.
_NO_FAULT = ("ok", "clip", "server", "busy", "cancelled", "draining", "superseded", "unsent")
_EVERYWHERE = ("0.0.0.0", "::", "*")  # noqa: S104  # addresses that are read, not bound
_LEAST_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What all pages said at one look."""

    pages: tuple[Page, ...] = ()

    @property
    def at_s(self) -> float:
        """When it was over, by the pages' clock."""
        return max((page.at_s for page in self.pages), default=0.0)


def server_pages(page: Page) -> list[str]:
    """HOST:PORT of the metrics of the servers that a trainer's page names."""
    return sorted({labels["page"] for labels, _ in page.values(PAGE_INFO) if labels.get("page")})


def measure(before: Snapshot, after: Snapshot) -> State:
    """The state between two looks. A page that is new is not counted yet; one that says nothing now is silent."""
    known = {page.url: page for page in before.pages if not page.trouble}
    again = [page for page in after.pages if not page.trouble and known.get(page.url, page) is not page]
    changes = [Change(known[p.url], p, over_s=max(p.at_s - known[p.url].at_s, _LEAST_S)) for p in again]
    ranks = [rank for change in changes for rank in _ranks(change)]
    servers = _servers(changes)
    return State(
        over_s=max((change.over_s for change in changes), default=0.0),
        ranks=tuple(sorted(_told_apart(ranks), key=lambda rank: (-rank.starvation, rank.name))),
        servers=tuple(sorted(servers, key=lambda server: server.name)),
        silent=tuple((page.url, page.trouble) for page in after.pages if page.trouble),
    )


def _ranks(change: Change) -> Iterator[Rank]:
    page = change.page
    for name in sorted({labels.get("rank", "") for labels, _ in page.values(WAITS)}):
        yield Rank(
            name=name,
            waits=change.rates_by(WAITS, "cause", rank=name),
            waiting_s=page.total(f"{_TRAINER}waiting_seconds", rank=name),
            clips_s=change.rate(f"{_TRAINER}clips_total", rank=name),
            received_bytes_s=change.rate(f"{_CLIENT}received_bytes_total", rank=name),
            in_flight=page.total(f"{_CLIENT}inflight_requests", rank=name),
            window=page.total(f"{_CLIENT}window_requests", rank=name),
            held=page.total(f"{_CLIENT}held_clips", rank=name),
            held_limit=page.total(f"{_CLIENT}held_limit_clips", rank=name),
        )


def _told_apart(ranks: Sequence[Rank]) -> list[Rank]:
    """Ranks of two runs may have the same number: then the later ones get a letter."""
    times: dict[str, int] = defaultdict(int)
    apart = []
    for rank in ranks:
        times[rank.name] += 1
        again = times[rank.name]
        apart.append(rank if again == 1 else replace(rank, name=f"{rank.name} of run {again}"))
    return apart


@dataclass(slots=True)
class _Seen:
    """What ranks see of a server."""

    state: str = ""
    ok_s: float = 0.0
    failed_s: float = 0.0
    clip_s: list[float] = field(default_factory=list)


def _servers(changes: Sequence[Change]) -> list[Server]:
    seen, servers = _all_seen(changes), []
    for change in changes:
        if THREADS in change.page.samples:
            addresses = [labels.get("address", "") for labels, _ in change.page.values(f"{_SERVER}clients")]
            mine = [name for name in seen if any(_same(name, a, change.page.url) for a in addresses)]
            servers.append(_server(change, [(name, seen.pop(name)) for name in mine]))
    for name, one in seen.items():
        clip_s = sum(one.clip_s) / len(one.clip_s) if one.clip_s else 0.0
        servers.append(Server(name=name, seen_state=one.state, ok_s=one.ok_s, failed_s=one.failed_s, clip_s=clip_s))
    return servers


def _all_seen(changes: Sequence[Change]) -> dict[str, _Seen]:
    """By the server's address: the worst state that a rank sees, and the requests of all of them."""
    seen: dict[str, _Seen] = defaultdict(_Seen)
    for change in changes:
        for labels, value in change.page.values(SEEN_STATE):
            one, state = seen[labels.get("server", "")], labels.get("state", "")
            if value and one.state in ("", "up", "trial"):
                one.state = state
        for labels, increase in change.increases(f"{_CLIENT}requests_total"):
            name, outcome = labels.get("server", ""), labels.get("outcome", "")
            if name in seen and outcome == "ok":
                seen[name].ok_s += increase / change.over_s
            elif name in seen and outcome not in _NO_FAULT:
                seen[name].failed_s += increase / change.over_s
        for name, mean_s in change.means_by(f"{_CLIENT}request_duration_seconds", "server").items():
            if name in seen:
                seen[name].clip_s.append(mean_s)
    return dict(seen)


def _server(change: Change, seen: Sequence[tuple[str, _Seen]]) -> Server:
    page = change.page
    state = next((labels.get(SERVER_STATE, "") for labels, value in page.values(SERVER_STATE) if value), "")
    stages = change.means_by(f"{_SERVER}stage_duration_seconds", "stage")
    clip_s = sum(stages.get(stage, 0.0) for stage in ("read", "decode", "scale"))
    storage, outcomes = f"{_SERVER}storage_duration_seconds", change.rates_by(f"{_SERVER}requests_total", "outcome")
    reads = change.rate(f"{storage}_count")
    return Server(
        name=seen[0][0] if seen else urlsplit(page.url).netloc,
        paged=True,
        state=state,
        seen_state=next((one.state for _, one in seen), ""),
        clips_s=change.rate(f"{_SERVER}clips_total"),
        ok_s=sum(one.ok_s for _, one in seen),
        failed_s=sum(one.failed_s for _, one in seen),
        errors_s=sum(rate for outcome, rate in outcomes.items() if outcome not in _NO_FAULT),
        sockets=len({labels.get("socket") for labels, _ in page.values(THREADS)}),
        threads=max(page.total(THREADS), 0.0),
        busy_threads=change.rate(f"{_SERVER}thread_busy_seconds_total"),
        queue=page.total(f"{_SERVER}queue_depth_requests"),
        front_busy=change.rate(f"{_SERVER}front_busy_seconds_total"),
        clip_s=clip_s,
        read_share=stages.get("read", 0.0) / clip_s if clip_s else 0.0,
        read_bytes_s=change.rate(f"{_SERVER}read_bytes_total"),
        storage_mean_s=change.rate(f"{storage}_sum") / reads if reads else 0.0,
        storage_p99_s=change.quantile(storage, 0.99),
        stuck_reads=page.total(f"{_SERVER}stuck_reads"),
    )


def _same(name: str, address: str, page_url: str) -> bool:
    """Whether a rank's name of a server is one of the addresses that a page says its server listens at."""
    if name == address:
        return True
    try:
        there, here, host = urlsplit(name), urlsplit(address), urlsplit(page_url).hostname
        same_port = there.port == here.port
    except ValueError:
        return False
    return here.hostname in _EVERYWHERE and there.scheme == here.scheme and same_port and there.hostname == host
