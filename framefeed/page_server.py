"""Serves a few small pages over HTTP, for scrapes and probes: bounded in connections, threads, bytes and time.

Whoever connects and says nothing, says it slowly or does not read costs one connection for five seconds, and the oldest
connection gives way to a new one, so that idle ones keep no scrape out. It knows nothing of what the pages say.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http import HTTPStatus

from framefeed.page_place import SERVER

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
THREADS = 16
REQUEST_S = 5.0  # from the connection to the last byte of the answer
_HEAD_BYTES = 8192
_CLOSE_S = 1.0
_LOOP_DESCRIPTORS = 3
# For whoever looks by a browser: nothing but what is here is loaded, run, framed or guessed.
_GUARDS = (
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
)
_CROWD = f"{MAX_CONNECTIONS} newer connections came before it had its answer"

Page = tuple[int, str, bytes]  # HTTP status, content type, body


class PageServer:
    """Serves from construction to `close`. `get(path)` makes a page, in one of 16 threads; of each path one at a time,
    which all who ask for it meanwhile are given.
    """

    def __init__(
        self, host: str, port: int, *, get: Callable[[str], Page], refused: Callable[[str, str], None] | None = None
    ) -> None:
        """Port 0 takes a free one; `refused(who, why)` is told of each connection that got no page, in its thread.

        Raises OSError or OverflowError if the address cannot be had.
        """
        family = socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET
        self._socket, self._loop = _listening(host, port, family)
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._get, self._refused = get, refused or (lambda *_: None)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="http-page")
        self._connections: OrderedDict[asyncio.Task[None], None] = OrderedDict()
        self._pages: dict[str, asyncio.Future[Page]] = {}  # that are being made
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering. Blocks for up to 1 s. Idempotent."""
        with contextlib.suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            self._loop.set_exception_handler(_tell)
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._serve())
        finally:
            self._socket.close()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._socket, limit=_HEAD_BYTES)
        try:
            await self._over.wait()
        finally:
            server.close()
            connections = list(self._connections)
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = None
        if len(self._connections) > MAX_CONNECTIONS:
            self._connections.popitem(last=False)[0].cancel(_CROWD)
        try:
            async with asyncio.timeout(REQUEST_S):
                await self._converse(reader, writer)
        except (TimeoutError, OSError, EOFError, asyncio.CancelledError) as error:
            self._let_go(writer, error)
            writer.transport.abort()
        finally:
            self._connections.pop(task, None)
            writer.close()

    def _let_go(self, writer: asyncio.StreamWriter, error: BaseException) -> None:
        log.debug("a client of the HTTP port is let go: %s", type(error).__name__)
        if isinstance(error, TimeoutError):
            self._refuse(writer, f"its request was not made and answered within {REQUEST_S:g} s")
        elif error.args == (_CROWD,):
            self._refuse(writer, _CROWD)

    def _refuse(self, writer: asyncio.StreamWriter, why: str) -> None:
        peer = writer.get_extra_info("peername") or ("an address", 0)
        self._refused(f"a client at {peer[0]}:{peer[1]} of the HTTP port", why)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # drained is sent
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            why = f"the head of a request has at most {_HEAD_BYTES} bytes"
            self._refuse(writer, why)
            method, (code, kind, body) = b"GET", _plain(431, why)
        else:
            method, code, kind, body = await self._page(head)
            if code in (400, 405):
                self._refuse(writer, body.decode().strip())
        dated = f"Date: {formatdate(usegmt=True)}\r\nServer: {SERVER}\r\n"  # the date: clocks are compared by it
        start = f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\nContent-Type: {kind}\r\n{dated}{_GUARDS}"
        writer.write(f"{start}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        if method != b"HEAD":
            writer.write(body)
        await writer.drain()

    async def _page(self, head: bytes) -> tuple[bytes, int, str, bytes]:
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return b"GET", *_plain(400, "this port speaks HTTP/1.1")
        if words[0] not in (b"GET", b"HEAD"):
            return words[0], *_plain(405, "this port answers GET and HEAD")
        path = words[1].partition(b"?")[0].decode("latin-1")
        page = self._pages.get(path)
        if page is None:
            page = self._pages[path] = asyncio.ensure_future(self._loop.run_in_executor(self._pool, self._get, path))
            page.add_done_callback(lambda _: self._pages.pop(path, None))
        try:
            return words[0], *await asyncio.shield(page)
        except Exception as error:  # a page that cannot be made is its caller's answer, and the log's
            log.warning("page %s cannot be made: %s", path[:80], error)
            return words[0], *_plain(500, "the page cannot be made")


def _listening(host: str, port: int, family: socket.AddressFamily) -> tuple[socket.socket, asyncio.AbstractEventLoop]:
    """A socket and the loop to serve it. Raises OSError or OverflowError, with nothing left."""
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(MAX_CONNECTIONS)
        with contextlib.ExitStack() as reserve:  # a loop that lacks some says so in a traceback, when collected
            for _ in range(_LOOP_DESCRIPTORS):
                reserve.callback(os.close, os.dup(listener.fileno()))
        loop = asyncio.new_event_loop()
        undo.pop_all()
        return listener, loop


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What asyncio would print with a traceback, such as that there is no descriptor for a connection now."""
    log.debug("HTTP port: %s", context.get("message"))


def _plain(code: int, text: str) -> Page:
    return code, "text/plain; charset=utf-8", f"{text}\n".encode()


def _is_ipv6(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).version == 6
    return False
