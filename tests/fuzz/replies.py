"""The way of a reply into a trainer: read, then taken in by a dispatch that asks for clips all the time. No sockets."""

from __future__ import annotations

import random

from msgspec import structs

from framefeed.errors import BadInput, FramefeedError, WrongVersion
from framefeed.show_value import LINE_CHARS
from framefeed.wire import ClipReply, DecodeCall, Reply, peek_attempt, unpack_reply
from tests.unit.client.clips import CLIP_BYTES, request
from tests.unit.client.test_dispatch import Desk
from trainer_client.fleet.watchdog import Stalled

URL = "tcp://a:1"
_LIFE = 300  # replies that a dispatch takes before another takes its place: one that has met its match asks no more


def says_one_line(error: Exception, chars: int = LINE_CHARS) -> None:
    """Raises AssertionError unless an error is one printable line of at most so many characters."""
    said = str(error)
    assert len(said) <= chars, f"{len(said)} characters: {said[:100]!r}"
    assert said.isprintable(), f"not printable: {said[:100]!r}"


class ReplyTaker:
    """Takes replies as a feed does; after each the conservation law holds."""

    def __init__(self) -> None:
        self._taken = 0
        self._begin()

    def take(self, header: bytes, rng: random.Random) -> None:
        """Raises what would be a bug of a feed."""
        if self._taken % _LIFE == 0:
            self._begin()
        self._taken += 1
        desk, dispatch = self._desk, self._desk.dispatch
        attempt = self._ask()
        try:
            reply: Reply = unpack_reply(header)
        except WrongVersion as error:
            dispatch.foreign(URL, str(error), now_s=desk.now_s)
        except FramefeedError as error:
            says_one_line(error)
            dispatch.malformed(URL, peek_attempt(header), now_s=desk.now_s, why=str(error))
        else:
            if rng.random() < 0.8 and reply.attempt:
                reply = structs.replace(reply, attempt=attempt)  # an answer to what was asked
            dispatch.expects(URL, reply.attempt)
            pixel_bytes = rng.choice((CLIP_BYTES, CLIP_BYTES, 0, 1))
            dispatch.replied(
                URL, reply, pixel_bytes=pixel_bytes if isinstance(reply, ClipReply) else 0, now_s=desk.now_s
            )
        dispatch.finished()
        desk.fleet.tidings()
        dispatch.situation(desk.now_s)

    def _ask(self) -> int:
        """An attempt that awaits its answer, if the dispatch still asks this server."""
        self._ticket += 1
        self._desk.dispatch.want(self._ticket, self._request, now_s=self._desk.now_s)
        try:
            sent = self._desk.tick(1.0)
        except (BadInput, Stalled):  # no server fits the run, or none answers: it ends in one line
            self._begin()
            return 1
        attempts = [send.call.attempt for send in sent if isinstance(send.call, DecodeCall)]
        return attempts[-1] if attempts else 1

    def _begin(self) -> None:
        self._desk = Desk(URL, "tcp://b:1")
        self._ticket, self._request = 0, request(0)
