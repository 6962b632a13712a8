"""What became of each clip that is wanted: who held it back, who was asked in vain, and what servers spent on it.

It is told what happens and decides nothing; it knows tickets, servers' addresses and times, no batches and no clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trainer_client.measures.pace import Answer, Pace, ends_of, expected, mean_of
from trainer_client.measures.spans import Spans
from trainer_client.measures.wait import ORDINARY, ClipLife, Part

# What a clip waited for when an attempt ended so; any other error is one of its decoding.
_LOST_BY = {
    "busy": "server_queue",
    "deadline_exceeded": "server_queue",
    "resource_exhausted": "server_queue",
    "cancelled": "server_queue",
    "storage_fault": "read",
    "draining": "no_server",
    "not_here": "no_server",
    "wrong_version": "no_server",
}
_PLAN, _SHALLOW = "plan", "shallow"


@dataclass(slots=True, eq=False)
class _Life:
    wanted_s: float
    shallow_s: float
    past: list[Part] = field(default_factory=list)
    asked: dict[str, float] = field(default_factory=dict)  # servers that have not answered, and since when

    @property
    def known_s(self) -> float:
        return self.past[-1][1] if self.past else self.wanted_s


class Lives:
    """The lives of one feed's clips. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._lives: dict[int, _Life] = {}
        self._held = Spans()  # by whom clips that no server is asked for are held back
        self._planning = Spans()
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)
        self._shallow = Spans()
        self._opened = (0.0, 0.0)  # when the last batch was, and for how long it could have been before

    # What happened to the feed.

    def planning(self, is_planning: bool, now_s: float) -> None:
        """The feed's thread begins or ceases to plan a batch: meanwhile it hears nothing."""
        self._planning.note(_PLAN if is_planning else "", now_s)

    def shallow(self, is_shallow: bool, now_s: float) -> None:
        """Whether no further batch may be opened although servers have little to do."""
        self._shallow.note(_SHALLOW if is_shallow else "", now_s)

    def held(self, cause: str, now_s: float) -> None:
        """From now on clips wait to be asked for because of this; "" while none does."""
        self._held.note(cause, now_s)

    # What happened to a clip.

    def wanted(self, ticket: int, now_s: float) -> None:
        """A clip is wanted: those of a batch at one time, one in the place of another at any."""
        opened_s, shallow_s = self._opened
        if now_s != opened_s:
            shallow_s = self._shallow.total_s(_SHALLOW, opened_s, now_s)
            self._opened = now_s, shallow_s
        self._lives[ticket] = _Life(wanted_s=now_s, shallow_s=shallow_s)

    def asked(self, ticket: int, url: str, now_s: float) -> None:
        """A server is asked for it, or another as well."""
        life = self._lives[ticket]
        if not life.asked:
            life.past += self._not_asked(life.known_s, now_s)
        life.asked[url] = now_s

    def lost(self, ticket: int, url: str, now_s: float) -> None:
        """A server that was asked gives no answer."""
        self._ended(ticket, url, [("no_server", now_s)], now_s)

    def slow(self, ticket: int, url: str, now_s: float) -> None:
        """A server that lives had all the time there is."""
        life = self._lives.get(ticket)
        if life is not None and url in life.asked:
            guess = self._guess(url, sent_s=life.asked[url], now_s=now_s)
            self._ended(ticket, url, guess, now_s)

    def refused(self, ticket: int, url: str, code: str, now_s: float) -> None:
        """A server answered with an error."""
        self._ended(ticket, url, [(_LOST_BY.get(code, "decode"), now_s)], now_s)

    def rests(self, ticket: int, until_s: float) -> None:
        """No server is asked until then, because of what came of the last attempt."""
        past = self._lives[ticket].past
        past.append((past[-1][0] if past else "no_server", until_s))

    def forget(self, ticket: int) -> None:
        """It is not wanted any more."""
        self._lives.pop(ticket, None)

    def got(self, ticket: int, url: str, answer: Answer) -> ClipLife:
        """A server gave the clip. Returns its whole life: what was before that server was asked, and its answer."""
        life, sent_s, now_s = self._lives.pop(ticket), answer.sent_s, answer.received_s
        life.past = [(cause, min(end_s, sent_s)) for cause, end_s in life.past]  # it may be late, and others asked
        for other, other_sent_s in life.asked.items():
            if other_sent_s < sent_s:  # what the first one was doing when a second was asked
                before = self._guess(other, sent_s=other_sent_s, now_s=now_s)
                life.past += [(cause, min(end_s, sent_s)) for cause, end_s in before]
                break
        ends = self._unheard(ends_of(answer.stages(), sent_s), sent_s)
        self._paces[url].took(_lasts(ends, sent_s))
        return self._life(life, ends, now_s)

    def gone(self, url: str) -> None:
        """A server is not connected any more; nothing is known of the one that may come back."""
        self._paces.pop(url, None)

    # What is known of clips that have not come.

    def planned_s(self, start_s: float, end_s: float) -> float:
        """For how much of this time the feed's thread was planning."""
        return self._planning.total_s(_PLAN, start_s, end_s)

    def so_far(
        self, tickets: Sequence[int], now_s: float, *, is_silent: Callable[[str, float], bool]
    ) -> ClipLife | None:
        """The life until now of that clip among these which is likely the last to come; None if none is wanted.

        A server that was asked at some time and `is_silent` since is held to be lost.
        """
        lives = [self._lives[ticket] for ticket in tickets if ticket in self._lives]
        if not lives:
            return None
        life = max(lives, key=self._likely_s)
        if not life.asked:
            return self._life(life, self._not_asked(life.known_s, now_s), now_s)
        url, sent_s = next(iter(life.asked.items()))
        if is_silent(url, sent_s):
            return self._life(life, [("no_server", now_s)], now_s)
        return self._life(life, self._guess(url, sent_s=sent_s, now_s=now_s), now_s)

    def _likely_s(self, life: _Life) -> tuple[bool, float]:
        if not life.asked:
            return True, life.wanted_s
        return False, min(sent_s + sum(self._mean_s(url).values()) for url, sent_s in life.asked.items())

    def _ended(self, ticket: int, url: str, met: Sequence[Part], now_s: float) -> None:
        """An attempt is over that brought nothing; its time until another was made beside it was spent so."""
        life = self._lives.get(ticket)
        if life is None or url not in life.asked:
            return
        sent_s = life.asked.pop(url)
        since_s = min(life.asked.values(), default=now_s)  # what another is asked for is that one's doing
        if since_s > sent_s:
            life.past += [(cause, min(end_s, since_s)) for cause, end_s in met]

    def _not_asked(self, since_s: float, now_s: float) -> list[Part]:
        held = [(cause or _PLAN, end_s) for cause, end_s in self._held.between(since_s, now_s)]
        return self._unheard(held, since_s, hidden=("client_limit", "server_queue"))

    def _mean_s(self, url: str) -> dict[str, float]:
        return self._paces[url].mean_s or mean_of(self._paces.values())

    def _guess(self, url: str, *, sent_s: float, now_s: float) -> list[Part]:
        """What a clip probably met since it was sent. That it takes long is no server's doing while none is heard."""
        mean_s = self._mean_s(url)
        usual_s = sent_s + sum(mean_s.values())
        unheard_s = self.planned_s(usual_s, now_s)
        ends = self._unheard(expected(mean_s, sent_s=sent_s, now_s=now_s - unheard_s), sent_s)
        return [*ends, (_PLAN, now_s)]

    def _unheard(self, parts: Sequence[Part], start_s: float, *, hidden: tuple[str, ...] = ("network",)) -> list[Part]:
        """The parts, begun at start, but plan for those that are hidden while the feed's thread was planning: an answer
        may lie unread.
        """
        found: list[Part] = []
        at_s = start_s
        for cause, end_s in parts:
            if cause in hidden:
                found += [(planning or cause, until_s) for planning, until_s in self._planning.between(at_s, end_s)]
            else:
                found.append((cause, end_s))
            at_s = max(end_s, at_s)
        return found

    def _life(self, life: _Life, ends: Sequence[Part], now_s: float) -> ClipLife:
        parts = tuple((cause, min(end_s, now_s)) for cause, end_s in (*life.past, *ends))
        return ClipLife(wanted_s=life.wanted_s, received_s=now_s, parts=parts, shallow_s=life.shallow_s)


def _lasts(ends: Sequence[Part], start_s: float) -> dict[str, float]:
    lasts = dict.fromkeys(ORDINARY, 0.0)
    at_s = start_s
    for cause, end_s in ends:
        if cause in lasts:
            lasts[cause] += end_s - at_s
        at_s = end_s
    return lasts
