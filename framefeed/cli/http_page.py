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
from framefeed.show_value import show_value


def check_url(url: str) -> tuple[str, int, str]:
    """(host, port, path) of http://HOST:PORT/PATH. Raises BadInput for anything else."""
    try:
        where = urlsplit(url)
        host, port = where.hostname, where.port
    except ValueError as error:
        raise BadInput(f"{show_value(url)}: {error}; wanted http://HOST:PORT/PATH") from None
    if where.scheme != "http" or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise BadInput(f"{show_value(url)} is no address to ask; wanted http://HOST:PORT/PATH")
    return host, port or 80, where.path or "/"


class Answer(NamedTuple):
    """A page: its HTTP status, its body, and the date in its head as written, "" without one."""

    status: int
    body: bytes
    date: str


def get_page(url: str, *, limit_s: float, most_bytes: int) -> tuple[int, bytes]:
    """(status, body) of a page, as get_answer gets it."""
    return get_answer(url, limit_s=limit_s, most_bytes=most_bytes)[:2]


def get_answer(url: str, *, limit_s: float, most_bytes: int) -> Answer:
    """A page, the body cut off behind `most_bytes`.

    Blocks for `limit_s` at most for each address of the host's name, and for as long again from the connection to the
    last byte, however slowly they come. Raises FramefeedError if there is no answer, BadInput for no URL to ask.
    """
    host, port, path = check_url(url)
    connection = http.client.HTTPConnection(host, port, timeout=limit_s)
    began_s = time.monotonic()
    try:
        connection.connect()
        timer = threading.Timer(limit_s, _cut, [connection.sock])  # its timeout is for each step: many make no end
        timer.name, timer.daemon = "http-limit", True
        timer.start()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(most_bytes), answer.getheader("Date") or "")
        finally:
            timer.cancel()
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: half an answer, of chunks
        late = time.monotonic() - began_s >= limit_s
        why = "timed out" if late else str(error) or type(error).__name__
        raise FramefeedError(f"{url} does not answer: {why}") from None
    finally:
        connection.close()


def _cut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
