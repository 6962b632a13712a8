"""Why clips wait: who holds back those that no server is asked for, and what is known of those that have not come.

It reads the dispatch's state and changes nothing of it; it knows no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer_client.fleet.assignment import Assignment, Desk
from trainer_client.measures.wait import ClipLife

_SILENCE = 3.0  # p99s without a word from a server that was asked: it is likely lost
_LEAST_SILENCE_S = 0.25  # shorter ones are the machine's pauses


class Holds:
    """Of one feed."""

    def __init__(self, desk: Desk, assignment: Assignment) -> None:
        self._fleet, self._clips, self._attempts = desk.fleet, desk.clips, desk.attempts
        self._timeouts, self._lives = desk.timeouts, desk.lives
        self._assignment = assignment

    def note(self, now_s: float) -> None:
        """Everything was asked for now that could be: whatever still waits is held back."""
        self._lives.held(self._holder(now_s), now_s)

    @property
    def has_spare(self) -> bool:
        """Whether servers have threads for as many clips again as are asked for, and nothing holds any back."""
        return self._clips.first() is None and self._spare_clips() >= max(len(self._attempts), 1)

    def life_so_far(self, tickets: Sequence[int], now_s: float) -> ClipLife | None:
        """What became until now of that clip among these which is likely the last to come; None if none is wanted."""
        return self._lives.so_far(tickets, now_s, is_silent=lambda url, since_s: self._is_silent(url, since_s, now_s))

    def _holder(self, now_s: float) -> str:
        first = self._clips.first()
        if first is None:
            return ""
        if not self._fleet.up or self._all_silent(now_s):
            return "no_server"
        limited = not self._assignment.has_credit(first) and self._fleet.has_room(now_s)
        return "client_limit" if limited and self._spare_clips() > 0 else "server_queue"

    def _all_silent(self, now_s: float) -> bool:
        """Whether every server that is up was asked for clips and has said nothing for long."""
        up = [self._fleet.servers[url] for url in self._fleet.up]
        if any(now_s - server.heard_s <= _LEAST_SILENCE_S for server in up):
            return False
        asked_s: dict[str, float] = {}
        for attempt in self._attempts:
            asked_s.setdefault(attempt.url, attempt.sent_s)
        return all(s.url in asked_s and self._is_silent(s.url, asked_s[s.url], now_s) for s in up)

    def _is_silent(self, url: str, since_s: float, now_s: float) -> bool:
        """Whether a server has said nothing since then for longer than it takes, although somebody listened."""
        server = self._fleet.servers.get(url)
        if server is None:
            return True
        heard_s = max(server.heard_s, since_s)
        deadline_s, p99_s = self._timeouts.deadline_s, self._timeouts.p99_s
        longest_s = deadline_s if p99_s is None else min(_SILENCE * p99_s, deadline_s)
        return now_s - heard_s - self._lives.planned_s(heard_s, now_s) > max(longest_s, _LEAST_SILENCE_S)

    def _spare_clips(self) -> int:
        """Threads of servers that no clip of ours is for; none while clips wait for threads anywhere."""
        servers = [self._fleet.servers[url] for url in self._fleet.up]
        if any(server.load.queued for server in servers):
            return 0
        return sum(server.workers for server in servers) - len(self._attempts)
