"""The balancer: which of the servers that have room gets a clip. It follows from loads and the seed alone.

It keeps nothing of clips and knows no states beyond whether a server takes requests and has room.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from framefeed.draws import ORDER, draw_below
from trainer_client.fleet.affinity import Ring
from trainer_client.fleet.server import Server

_SPEED_RATIO = 4.0  # a server counts as at most so many times slower or faster than the mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A clip that wants a server: not one of `avoid`; of the part `key` of a video, if parts have homes.

    `spare` asks for one that has nothing waiting: what it does then, it does instead of nothing.
    """

    avoid: Collection[str] = ()
    key: int | None = None
    clip_bytes: int = 1
    spare: bool = False

    def may(self, server: Server, now_s: float) -> bool:
        """Whether this server may be the one now."""
        waits = self.spare and server.load.queued > 0
        return server.has_room and now_s >= server.rest_until_s and server.url not in self.avoid and not waits


class Balancer:
    """The first server with room on the key's walk around the ring whose load stays within bounds (Mirrokni, Thorup and
    Zadimoghaddam 2018, consistent hashing with bounded loads); without a key, or if none does, the less loaded of two
    drawn by seed (Mitzenmacher 2001: two choices are nearly as good as all). Load is bytes in flight a worker times the
    average latency, so that a slow server gets less.
    """

    def __init__(self, up: Mapping[str, Server], *, seed: int, slack: float | None, picks: Counter[str]) -> None:
        """`up` are the servers that take requests, as they come and go; `picks` counts why servers were picked: "home",
        "passed_on" to the next server of a part, "two_choices".
        """
        self._up = up
        self._seed, self._slack = seed, slack
        self._picks = picks
        self._drawn = 0
        self._ring: Ring | None = None
        self._speed: dict[str, float] = {}
        self._speed_picks_left = 0
        self.inflight_bytes = 0  # of clips asked for and not yet answered, at all servers: the fleet's count

    def members_changed(self) -> None:
        """Somebody joined or left for good."""
        self._ring = None

    def server_changed(self) -> None:
        """A server takes requests now, or no more."""
        self._speed_picks_left = 0

    def pick(self, asked: Asked, *, room: Iterable[Server], members: Collection[str], now_s: float) -> Server | None:
        """The server for a clip out of those with `room`; None if none may have it. Homes are among `members`."""
        if asked.key is not None and self._slack is not None:
            for count, server in enumerate(self._bearing(asked.key, asked.clip_bytes, members, slack=self._slack)):
                if server is not None and asked.may(server, now_s):
                    self._picks["passed_on" if count else "home"] += 1
                    return server
        may = [server for server in room if asked.may(server, now_s)]
        self._picks["two_choices"] += bool(may)
        return self._less_loaded(may) if may else None

    def _bearing(self, key: int, clip_bytes: int, members: Collection[str], *, slack: float) -> Iterator[Server | None]:
        """The servers that take requests, as the key's walk meets them; None for one that bears no further clip."""
        speed = self._speeds()
        clips_per_speed = (1 + slack) * (self.inflight_bytes + clip_bytes) / clip_bytes / (sum(speed.values()) or 1.0)
        self._ring = Ring(members) if self._ring is None else self._ring
        for url in self._ring.walk(key):
            if url in speed:
                bound_bytes = math.ceil(clips_per_speed * speed[url]) * clip_bytes
                server = self._up[url]
                yield server if server.inflight_bytes + clip_bytes <= bound_bytes else None

    def _less_loaded(self, room: Sequence[Server]) -> Server:
        if len(room) == 1:
            return room[0]
        self._drawn += 1
        first = draw_below(self._seed, len(room), stream=ORDER, counter=2 * self._drawn)
        second = draw_below(self._seed, len(room) - 1, stream=ORDER, counter=2 * self._drawn + 1)
        speed = self._speeds()
        pair = room[first], room[second + (second >= first)]
        return min(pair, key=lambda server: server.inflight_bytes / speed[server.url])

    def _speeds(self) -> Mapping[str, float]:
        """Workers a second of latency of each server that takes requests, relative to the mean latency; who has not
        answered yet counts as average. Looked at anew after as many picks as there are servers, or when one changed.
        """
        self._speed_picks_left -= 1
        if self._speed_picks_left < 0:
            up = list(self._up.values())
            known_s = [server.latency_s for server in up if server.latency_s]
            mean_s = sum(known_s) / len(known_s) if known_s else 1.0
            ratios = (min(max(mean_s / (s.latency_s or mean_s), 1 / _SPEED_RATIO), _SPEED_RATIO) for s in up)
            self._speed = {server.url: server.workers * ratio for server, ratio in zip(up, ratios, strict=True)}
            self._speed_picks_left = len(up)
        return self._speed
