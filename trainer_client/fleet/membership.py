"""Who is a server of a run: decides from what its sources saw, and when, which URLs join and which leave.

A pure state machine: no clock, no sockets and no files. What a source sees is advice; a connection that stands is
better evidence that a server lives than a lease that nobody renewed or a name that no longer leads there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from framefeed.server_entry import Standstill
from trainer_client.fleet.addresses import REGISTRY
from trainer_client.fleet.siblings import Siblings


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One server as a source sees it. `name` is the same each time it is seen; `urls` all lead to it, best first.

    A server that lives makes `beat` move at least every `lease_s` seconds; one without a lease lives while it is seen.
    """

    name: str
    urls: tuple[str, ...]
    beat: int = 0
    lease_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """All servers that a source saw at one look; None, and why, when it could not look. `refused` are names of others
    that are not to be used, each with the reason.
    """

    source: str
    seen: tuple[Candidate, ...] | None
    why: str = ""
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be done to the connections."""

    joined: tuple[str, ...]
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLimits:
    """A server that its source no longer names, but that is connected, stays for `linger_s`: it may be draining. The
    next URL of a server is tried when one did not connect within `try_s`.
    """

    linger_s: float = 30.0
    try_s: float = 5.0


@dataclass(slots=True)
class _Known:
    urls: tuple[str, ...]
    stood_s: float = 0.0  # when its source last looked
    lease_s: float = math.inf
    gone_s: float | None = None  # since when it is not seen any more
    member: bool = False
    tried: int = 0
    tried_s: float = 0.0

    @property
    def url(self) -> str:
        return self.urls[self.tried % len(self.urls)]


class Membership:
    """The members of one run. Times are of one monotonic clock that the caller reads."""

    def __init__(self, limits: MemberLimits | None = None) -> None:
        self._limits = limits or MemberLimits()
        self._known: dict[tuple[str, str], _Known] = {}
        self._still: dict[str, Standstill] = {}
        self._troubles: dict[str, str] = {}
        self._members: dict[str, None] = {}
        self._siblings = Siblings()

    @property
    def members(self) -> tuple[str, ...]:
        """The URLs that joined and have not left."""
        return tuple(self._members)

    def saw(self, discovered: Discovered, now_s: float) -> None:
        """A source looked. What one that could not look saw before stands."""
        source, seen = discovered.source, discovered.seen
        if seen is None:
            self._troubles[source] = discovered.why
            return
        self._troubles[source] = "" if seen else "names no server"
        still = self._still.setdefault(source, Standstill())
        for candidate in seen:
            known = self._known.setdefault((source, candidate.name), _Known(candidate.urls))
            if known.urls != candidate.urls:
                known.urls, known.tried = candidate.urls, 0
            known.stood_s, known.lease_s = still.saw(candidate.name, candidate.beat, now_s), candidate.lease_s
            known.gone_s = None
        names = {candidate.name for candidate in seen}
        still.keep(names)
        for (of, name), known in self._known.items():
            if of == source and name not in names and known.gone_s is None:
                known.gone_s = now_s

    def decide(
        self,
        now_s: float,
        *,
        connected: Collection[str],
        waiting: Collection[str] = (),
        siblings: Mapping[str, Collection[str]] | None = None,
    ) -> Change:
        """Who joins and who leaves now, given the members whose connections stand, and those that wait to be tried.

        `siblings` are the other fronts of its box that each of them names. A registry has an entry for each front, so
        that those from there name none.
        """
        wanted: dict[str, None] = {}
        given = set()
        for key, known in list(self._known.items()):
            if self._belongs(known, now_s, connected=known.member and known.url in connected):
                self._choose(known, now_s, untroubled=known.url in connected or known.url in waiting)
                wanted[known.url] = None
                if not key[0].startswith(REGISTRY):
                    given.add(known.url)
            else:
                known.member = False
                if known.gone_s is not None:
                    del self._known[key]
        wanted |= dict.fromkeys(
            self._siblings.decide(siblings or {}, given=given, connected=connected, waiting=waiting, now_s=now_s)
        )
        joined = tuple(url for url in wanted if url not in self._members)
        left = tuple(url for url in self._members if url not in wanted)
        self._members = wanted
        return Change(joined=joined, left=left)

    def tidings(self) -> list[str]:
        """Lines for people since the last call, of siblings that are not used."""
        return self._siblings.tidings()

    def __str__(self) -> str:
        """Where servers come from, for people, and what is wrong there."""
        return "; ".join(f"{source} {trouble}".rstrip() for source, trouble in self._troubles.items())

    def _belongs(self, known: _Known, now_s: float, *, connected: bool) -> bool:
        if known.gone_s is not None:
            return connected and now_s < known.gone_s + self._limits.linger_s
        return connected or known.stood_s <= known.lease_s

    def _choose(self, known: _Known, now_s: float, *, untroubled: bool) -> None:
        """Keep to its URL, or try the next one where it did not connect in time."""
        if not known.member or untroubled:
            known.member, known.tried_s = True, now_s
        elif len(known.urls) > 1 and now_s >= known.tried_s + self._limits.try_s:
            known.tried, known.tried_s = known.tried + 1, now_s
