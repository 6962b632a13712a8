"""The bottleneck: who holds back the clips that no server is asked for, and whether servers have more to give.

It looks and decides nothing; what becomes of what it says is the measures'.
"""

from __future__ import annotations

from trainer_client.fleet.assignment import Assignment, Desk

_SILENCE = 3.0  # p99s without a word from a server that was asked: it is likely lost


class Bottleneck:
    """Of one feed."""

    def __init__(self, desk: Desk, assignment: Assignment) -> None:
        self._fleet, self._clips, self._attempts = desk.fleet, desk.clips, desk.attempts
        self._timeouts, self._lives = desk.timeouts, desk.lives
        self._assignment = assignment

    @property
    def silence_s(self) -> float:
        """A server that was asked and says nothing for so long is held to be lost."""
        p99_s, deadline_s = self._timeouts.p99_s, self._timeouts.deadline_s
        return deadline_s if p99_s is None else min(_SILENCE * p99_s, deadline_s)

    @property
    def has_spare(self) -> bool:
        """Whether servers have threads for as many clips again as are asked for, and nothing holds any back."""
        return self._clips.first() is None and self._spare_clips() >= max(len(self._attempts), 1)

    def held_by(self, now_s: float) -> str:
        """Why clips wait that could be asked for; "" if none does."""
        first = self._clips.first()
        if first is None:
            return ""
        if not self._fleet.up or self._all_silent(now_s):
            return "no_server"
        has_credit = self._assignment.has_credit(first)
        limited = not has_credit and self._spare_clips() > 0 and self._fleet.has_room(now_s)
        return "client_limit" if limited else "server_queue"

    def _all_silent(self, now_s: float) -> bool:
        """Whether every server that is up was asked for clips and has said nothing for long."""
        asked_s = {attempt.url: attempt.sent_s for attempt in reversed(list(self._attempts))}
        return all(
            url in asked_s and self._lives.is_silent(url, asked_s[url], now_s, silence_s=self.silence_s)
            for url in self._fleet.up
        )

    def _spare_clips(self) -> int:
        """Threads of servers that no clip of ours is for, unless others' clips wait for them."""
        servers = self._fleet.servers
        workers = sum(servers[url].workers for url in self._fleet.up)
        return 0 if self._lives.queued else workers - len(self._attempts)
