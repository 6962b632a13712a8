"""Gets one page over plain HTTP: bounded in bytes and in time, by no proxy. It knows nothing of what the page says."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from framefeed.errors import BadInput, FramefeedError
from framefeed.name_lookup import connect_to
from framefeed.show_value import show_value

MOST_LIMIT_S = 3600.0
"""No page is worth waiting longer for; sockets take no more than some centuries."""


def check_url(url: str) -> tuple[str, int, str]:
    """(host, port, path) of http://HOST:PORT/PATH. Raises BadInput for anything else, a name or a password in it among
    that, which nobody would be shown: the error shows neither.
    """
    if "@" in url:
        raise BadInput(
            "an address with '@' in it, for a name or a password, is none to ask; wanted http://HOST:PORT/PATH"
        )
    try:
        where = urlsplit(url)
        host, port = where.hostname, where.port
    except ValueError as error:
        raise BadInput(f"{show_value(url)}: {error}; wanted http://HOST:PORT/PATH") from None
    if where.scheme != "http" or not host or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise BadInput(f"{show_value(url)} is no address to ask; wanted http://HOST:PORT/PATH")
    return host, port or 80, where.path or "/"


class Answer(NamedTuple):
    """A page: its HTTP status, its body, and of its head the date and the server's name as written, "" without one."""

    status: int
    body: bytes
    date: str
    server: str


def get_page(url: str, *, limit_s: float, most_bytes: int) -> tuple[int, bytes]:
    """(status, body) of a page, as get_answer gets it."""
    return get_answer(url, limit_s=limit_s, most_bytes=most_bytes)[:2]


def get_answer(url: str, *, limit_s: float, most_bytes: int) -> Answer:
    """A page, the body cut off behind `most_bytes`.

    Blocks for `limit_s` at most for the host's name and for each of its addresses, and for as long again from the
    connection to the last byte, however slowly they come. Raises FramefeedError if there is no answer, or no more than
    a part of one, BadInput for no URL to ask.
    """
    host, port, path = check_url(url)
    connection = http.client.HTTPConnection(host, port)
    began_s = time.monotonic()
    try:
        connection.sock = connect_to(host, port, limit_s=limit_s)
        began_s = time.monotonic()
        timer = threading.Timer(limit_s, _cut, [connection.sock])  # its timeout is for each step: many make no end
        timer.name, timer.daemon = "http-limit", True
        timer.start()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return _read(answer, most_bytes=most_bytes)
        finally:
            timer.cancel()
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: half an answer, of chunks
        late = time.monotonic() - began_s >= limit_s and not isinstance(error, TimeoutError)
        why = "timed out" if late else str(error) or type(error).__name__
        raise FramefeedError(f"{url} does not answer: {why}") from None
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, *, most_bytes: int) -> Answer:
    """Raises OSError for a body that ends before its head said: half a page would be numbers like any other."""
    whole_bytes = answer.length
    body = answer.read(most_bytes)
    if whole_bytes is not None and len(body) < min(whole_bytes, most_bytes):
        raise OSError(f"its page broke off after {len(body)} of {whole_bytes} bytes")
    return Answer(answer.status, body, answer.getheader("Date") or "", answer.getheader("Server") or "")


def _cut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
