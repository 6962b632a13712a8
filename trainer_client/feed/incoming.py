"""A server's message as the reply that it is, or what is wrong with it. It knows no connections and no clips."""

from __future__ import annotations

import logging

from framefeed.errors import BadRequest, WrongVersion
from framefeed.wire import Reply, unpack_reply

_log = logging.getLogger(__name__)

Incoming = Reply | WrongVersion | str
"""A reply, which version it is of instead, or why it does not read."""


def read_reply(url: str, header: bytes) -> Incoming:
    """What a message of this server says."""
    try:
        return unpack_reply(header)
    except WrongVersion as error:
        return error
    except BadRequest as error:
        return str(error)
    except Exception as error:  # whatever reading what others wrote comes to is their mistake
        _log.debug("a reply of %s does not read", url, exc_info=error)
        return f"it does not read ({type(error).__name__})"
