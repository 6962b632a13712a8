"""The state of a run between two looks at its metrics: ranks, servers, demand and supply. Values; knows no pages.

The formulas are those of deploy/prometheus/rules.yml, so that this screen and the dashboards agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

STARTING = "first_batch"  # the wait that is no starvation
_UP, _SERVES = ("up", "trial"), ("ready",)
_LEAST_SHARE, _LEAST_BUSY = 0.05, 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One rank of a trainer. `waits` are shares of its time by cause, `waiting_s` how long it is blocked now."""

    name: str
    waits: Mapping[str, float]
    waiting_s: float = 0.0
    clips_s: float = 0.0
    received_bytes_s: float = 0.0
    in_flight: float = 0.0
    window: float = 0.0
    held: float = 0.0
    held_limit: float = 0.0

    @property
    def starvation(self) -> float:
        """Share of its time that it waited for data, its first batch aside."""
        return min(sum(share for cause, share in self.waits.items() if cause != STARTING), 1.0)

    @property
    def demand_clips_s(self) -> float:
        """Clips a second without a wait: one that waits for half of its time would take twice as many."""
        return self.clips_s / max(1.0 - self.starvation, _LEAST_SHARE)

    @property
    def demand_is_known(self) -> bool:
        """Whether it worked enough between its waits; else the demand is at least that."""
        return 1.0 - self.starvation > _LEAST_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server: by its page, if that is `paged`, and by what the ranks see of it.

    `seen_state` is the worst that a rank sees, `ok_s` and `failed_s` are requests a second that ended well, or not.
    `clip_s` is the mean time that a clip took to be read, decoded and scaled (with no page from request to clip, where
    the ranks tell it by server; 0: not known), and `read_share` the part of it that was storage's.
    """

    name: str
    paged: bool = False
    state: str = ""
    seen_state: str = ""
    clips_s: float = 0.0
    ok_s: float = 0.0
    failed_s: float = 0.0
    errors_s: float = 0.0
    sockets: int = 0
    threads: float = 0.0
    busy_threads: float = 0.0
    queue: float = 0.0
    front_busy: float = 0.0
    clip_s: float = 0.0
    read_share: float = 0.0
    read_bytes_s: float = 0.0
    storage_mean_s: float = 0.0
    storage_p99_s: float = 0.0
    stuck_reads: float = 0.0

    @property
    def up(self) -> bool:
        """Whether it takes requests, by the ranks if they say, else by itself."""
        return self.seen_state in _UP if self.seen_state else self.state in _SERVES

    @property
    def failure_share(self) -> float:
        """Of the requests that ranks have ended with it, those that it failed."""
        finished = self.ok_s + self.failed_s
        return self.failed_s / finished if finished else 0.0


def short_name(server: str) -> str:
    """A server's name without the scheme that most have."""
    return server.removeprefix("tcp://")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A run between two looks: ranks, those that wait most first, servers, and pages that say nothing, with why."""

    over_s: float = 0.0
    ranks: tuple[Rank, ...] = ()
    servers: tuple[Server, ...] = ()
    silent: tuple[tuple[str, str], ...] = ()

    @property
    def got_clips_s(self) -> float:
        """Clips a second that all ranks got."""
        return sum(rank.clips_s for rank in self.ranks)

    @property
    def demand_clips_s(self) -> float:
        """Clips a second that they would take without a wait."""
        return sum(rank.demand_clips_s for rank in self.ranks)

    @property
    def could_clips_s(self) -> float | None:
        """Clips a second that the servers could decode with every thread at work, at what these clips cost; None if no
        page of a server that decodes was read. Those that are up and whose page is not read are taken for ones like
        the others.
        """
        clips_s = sum(server.clips_s for server in self.servers)
        busy_threads = sum(server.busy_threads for server in self.servers)
        if not clips_s or not self.threads:
            return None
        return clips_s * self.threads / max(busy_threads, _LEAST_BUSY) * self.unread_scale

    @property
    def unread_servers(self) -> int:
        """Servers that are up and whose page is not read, such as one that shows it to its own machine alone."""
        return sum(server.up and not server.paged for server in self.servers)

    @property
    def unread_scale(self) -> float:
        """How many times the servers with a page all are that give clips; 1 where all pages are read, or none is."""
        read = sum(server.paged and server.threads > 0 for server in self.servers)
        return (read + self.unread_servers) / read if read else 1.0

    @property
    def sockets(self) -> int:
        """CPU sockets of the servers whose pages were read."""
        return sum(server.sockets for server in self.servers)

    @property
    def threads(self) -> float:
        """Their decoding threads."""
        return sum(server.threads for server in self.servers)

    @property
    def busy_share(self) -> float:
        """Of those, the part that works."""
        return min(sum(server.busy_threads for server in self.servers) / self.threads, 1.0) if self.threads else 0.0
