"""The error tree, drawn for the catcher: would another attempt, on another server, help?

It knows nothing of transports or media; a code is what crosses the wire, a class is what is caught.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from framefeed.show_value import LINE_CHARS, one_line

_LOCAL_CHARS = 4000  # what a user is told of what is his own: paths, options, where each of many servers stands


class FramefeedError(Exception):
    """Root of everything framefeed raises on purpose; its message is one line, fit for a user.

    Whatever went into it, the line is printable and bounded from the start: to 300 characters for what crosses the
    wire, since part of that is its sender's.
    """

    code = "error"
    max_chars = _LOCAL_CHARS

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message, chars=self.max_chars))

    def said_by(self, who: str) -> Self:
        """The same with who says it in front."""
        return type(self)(f"{who}: {self}")


class BadInput(FramefeedError):
    """What the user typed or pointed at cannot be used; the message says what, where, seen and wanted.

    What is of one field of a dataclass, or of one parameter, names it: `BadInput("is 0, wanted at least 1",
    of="loader", field="steps")` reads "loader: steps is 0, …". Who lets users set it by another name says that name.
    """

    code = "bad_input"

    def __init__(self, message: str = "", *, of: str = "", field: str = "", by: str = "") -> None:
        self.field = field
        self._of, self._said, self._by = of, message, by
        who = f"{by}: " if by else ""
        super().__init__(who + (f"{of}: " if of else "") + (f"{field} " if field else "") + message)

    def renamed(self, field: str, *, of: str | None = None) -> BadInput:
        """The same of a field that its user knows by another name: with "--steps" and of="", "--steps is 0, …"."""
        return BadInput(self._said, of=self._of if of is None else of, field=field, by=self._by)

    def said_by(self, who: str) -> Self:
        """The same, of the same field, with who says it in front."""
        return type(self)(self._said, of=self._of, field=self.field, by=who)


class Retryable(FramefeedError):
    """Another server, or the same one later, may succeed."""

    code = "retryable"
    max_chars = LINE_CHARS


class Busy(Retryable):
    """The server has no room for the request now."""

    code = "busy"


class Draining(Retryable):
    """The server is leaving and takes no new requests."""

    code = "draining"


class ServerLost(Retryable):
    """The server, or the worker that held the request, died or was cut off."""

    code = "server_lost"


class DeadlineExceeded(Retryable):
    """The request's time was up before its clip was ready."""

    code = "deadline_exceeded"


class StorageFault(Retryable):
    """The storage failed (I/O error, stale handle, short read); the media itself may be fine."""

    code = "storage_fault"


class NotHere(Retryable):
    """This server cannot give the clip, another may: it serves another data set, or has no room for one so large."""

    code = "not_here"


class WrongVersion(Retryable):
    """The server and its client speak different versions of the contract."""

    code = "wrong_version"


class ResourceExhausted(Retryable):
    """The server ran out of memory, descriptors or processes over the request; the media itself may be fine."""

    code = "resource_exhausted"


class Cancelled(Retryable):
    """Its client took the request back."""

    code = "cancelled"


class Permanent(FramefeedError):
    """No server will ever answer this request with a clip."""

    code = "permanent"
    max_chars = LINE_CHARS


class BadRequest(Permanent):
    """The request contradicts itself, the limits, or the video it names."""

    code = "bad_request"


class TooCostly(Permanent):
    """The clip would take more reading or decoding than its servers give to one."""

    code = "too_costly"


class UnknownVideo(Permanent):
    """The video is not in the manifest."""

    code = "unknown_video"


class CorruptMedia(Permanent):
    """The bytes of the video do not decode to the frames that the index promises."""

    code = "corrupt_media"


class UnsupportedMedia(Permanent):
    """The container, codec or pixel format is none that the engine decodes exactly."""

    code = "unsupported_media"


@contextmanager
def fields_named(**options: str) -> Iterator[None]:
    """Within it, a BadInput of the field NAME is one of the field that is given as NAME=OTHER: where a user's option
    goes on to its owner by another name.
    """
    try:
        yield
    except BadInput as error:
        if error.field not in options:
            raise
        raise error.renamed(options[error.field]) from None


WIRE_ERRORS: dict[str, type[FramefeedError]] = {
    error.code: error
    for error in (
        Busy,
        Draining,
        ServerLost,
        DeadlineExceeded,
        StorageFault,
        NotHere,
        WrongVersion,
        ResourceExhausted,
        Cancelled,
        BadRequest,
        TooCostly,
        UnknownVideo,
        CorruptMedia,
        UnsupportedMedia,
    )
}


def error_from_code(code: str, message: str) -> FramefeedError:
    """Rebuild the error that a peer named by `code`; an unknown code is Permanent, never swallowed."""
    return WIRE_ERRORS.get(code, Permanent)(message)
