"""Siblings: the other fronts of a box, which one of them names; decides which of those addresses belong to a run.

A pure state machine: no clock, no sockets. Whoever names an address leads a client nowhere but to the host at which it
was reached itself (addresses.sibling_of), and to so many addresses there. It knows no sources and no credentials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from framefeed.wire import MAX_SIBLINGS
from trainer_client.fleet.addresses import host_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SiblingLimits:
    """One that was never there is given up after `try_s` and tried again `rest_s` later, for as long as it is named:
    its port may not be led through to here. Of one host there are at most `a_host`.
    """

    try_s: float = 10.0
    rest_s: float = 60.0
    a_host: int = MAX_SIBLINGS


@dataclass(slots=True)
class _Sibling:
    host: str
    tried_s: float
    met: bool = False  # it was connected to once
    told: bool = False  # that it is not there


class Siblings:
    """Of one run. Times are of one monotonic clock that the caller reads."""

    def __init__(self, limits: SiblingLimits | None = None) -> None:
        self._limits = limits or SiblingLimits()
        self._known: dict[str, _Sibling] = {}
        self._of_host: Counter[str] = Counter()
        self._too_many: set[str] = set()
        self._tidings: list[str] = []

    def decide(
        self,
        named: Mapping[str, Collection[str]],
        *,
        given: Collection[str],
        connected: Collection[str],
        waiting: Collection[str],
        now_s: float,
    ) -> tuple[str, ...]:
        """The URLs that belong to the run now, given what each front whose connection stands names.

        `given` are the servers that the user's sources name, `connected` all whose connections stand, `waiting` those
        that there is no room to try. A sibling belongs while a server of its host is given and it is connected itself,
        or is named and either was there before or has its time to come.
        """
        hosts = {host_of(url) for url in given}
        still_named = {url for front, urls in named.items() if front in given or front in self._known for url in urls}
        for url in sorted(still_named - self._known.keys()):
            self._meet(url, now_s)
        belong = []
        for url, sibling in list(self._known.items()):
            here = url in connected
            if sibling.host not in hosts or not (here or url in still_named):
                del self._known[url]
                self._of_host[sibling.host] -= 1
            elif self._belongs(url, sibling, here=here, waits=url in waiting, now_s=now_s):
                belong.append(url)
        return tuple(belong)

    def tidings(self) -> list[str]:
        """Lines for people since the last call: addresses that lead nowhere, and hosts that name too many."""
        tidings, self._tidings = self._tidings, []
        return tidings

    def _meet(self, url: str, now_s: float) -> None:
        host = host_of(url)
        if self._of_host[host] < self._limits.a_host:
            self._of_host[host] += 1
            self._known[url] = _Sibling(host=host, tried_s=now_s)
        elif host not in self._too_many:
            self._too_many.add(host)
            self._tidings.append(
                f"servers at {host} name more than {self._limits.a_host} fronts of their box: {url} is not used"
            )

    def _belongs(self, url: str, sibling: _Sibling, *, here: bool, waits: bool, now_s: float) -> bool:
        limits = self._limits
        sibling.met |= here
        if sibling.met:
            return True
        if waits or now_s >= sibling.tried_s + limits.try_s + limits.rest_s:
            sibling.tried_s = now_s
        if now_s < sibling.tried_s + limits.try_s:
            return True
        if not sibling.told:
            sibling.told = True
            self._tidings.append(
                f"server {url}, a front that its box names, could not be reached for {limits.try_s:g} s: it is tried "
                "again now and then"
            )
        return False
