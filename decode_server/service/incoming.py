"""A client's message as the call that it is, or what is wrong with it. It knows no connections and answers nothing."""

from __future__ import annotations

import logging

from framefeed.errors import BadRequest, FramefeedError
from framefeed.request import ClipRequest
from framefeed.wire import Call, unpack_call

log = logging.getLogger("framefeed.serve")


def read_call(frames: list[bytes]) -> Call | FramefeedError:
    """The call in a message, or what is wrong with it."""
    try:
        if len(frames) != 1:
            raise BadRequest(f"message has {len(frames) or 'no'} frames or more, wanted one: a header")
        return unpack_call(frames[0])
    except FramefeedError as error:
        return error
    except Exception as error:  # whatever reading what others wrote comes to is their mistake
        log.debug("a message does not read", exc_info=error)
        return BadRequest(f"wire: the message does not read ({type(error).__name__})")


def name_of(request: ClipRequest) -> str:
    """A clip as people read it."""
    return f"{request.video} [{request.start_s:g}, {request.end_s:g}) s"
