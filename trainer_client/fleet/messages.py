"""What the dispatch says to its caller: messages to send, and what became of tickets. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from framefeed.errors import FramefeedError
from framefeed.wire import Call, ClipReply
from trainer_client.measures.wait import ClipLife


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One message for a server."""

    url: str
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """The clip of a ticket arrived."""

    ticket: int
    reply: ClipReply
    life: ClipLife


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """No server will ever give the clip of a ticket; the error names video, span and server."""

    ticket: int
    error: FramefeedError
