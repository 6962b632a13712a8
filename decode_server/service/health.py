"""The HTTP port: /metrics, /healthz and /readyz, on threads of their own. It reads what the front published last.

It knows neither requests nor workers. /healthz says whether the front's loop turns; /readyz whether to send clips.
"""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST

from decode_server.service.lifecycle import State
from decode_server.service.listeners.endpoint import Endpoint
from framefeed.errors import BadInput

log = logging.getLogger("framefeed.serve")

ALIVE_S = 5.0  # the loop turns at least twice a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the front says of itself after each turn."""

    state: State
    turned_s: float
    detail: str


class HealthServer:
    """Serves from construction to `close`. Port 0 picks a free one. Raises BadInput if the port cannot be had."""

    def __init__(
        self, endpoint: Endpoint, port: int, *, status: Callable[[], Status], metrics: Callable[[], bytes]
    ) -> None:
        class Handler(_Handler):
            pages = Pages(status, metrics)

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if endpoint.ipv6 else socket.AF_INET
            daemon_threads = True
            block_on_close = False

            def server_bind(self) -> None:
                socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks DNS for a name that nobody needs

        try:
            self._http = Server((endpoint.address, port), Handler)
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is in use; choose another with --metrics-port" if in_use else f"cannot be opened ({error})"
            raise BadInput(f"metrics: port {port} of {endpoint.address} {why}") from None
        host = f"[{endpoint.address}]" if endpoint.ipv6 else endpoint.address
        self.url = f"http://{host}:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering. Blocks up to half a second. Idempotent."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=1.0)


class Pages:
    """What each path answers."""

    def __init__(
        self, status: Callable[[], Status], metrics: Callable[[], bytes], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._status = status
        self._metrics = metrics
        self._clock = clock

    def get(self, path: str) -> tuple[int, str, bytes]:
        """(HTTP status, content type, body) of a path."""
        if path == "/metrics":
            try:
                return 200, CONTENT_TYPE_LATEST, self._metrics()
            except TimeoutError as error:
                return _plain(503, str(error))
        status = self._status()
        age_s = self._clock() - status.turned_s
        alive = age_s < ALIVE_S
        if path == "/healthz":
            return _plain(200 if alive else 503, f"the loop last turned {age_s:.1f} s ago, {status.detail}")
        if path == "/readyz":
            return _plain(
                200 if alive and status.state is State.READY else 503, f"{status.state.value}, {status.detail}"
            )
        return _plain(404, "this port has /metrics, /healthz and /readyz")


def _plain(code: int, text: str) -> tuple[int, str, bytes]:
    return code, "text/plain; charset=utf-8", (text + "\n").encode()


class _Handler(BaseHTTPRequestHandler):
    pages: Pages
    timeout = 5.0  # of a client that connects and says nothing

    def do_GET(self) -> None:
        code, kind, body = self.pages.get(self.path.split("?")[0])
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)
