"""The HTTP port: /metrics, /healthz and /readyz, on threads of their own. It reads what the front published last.

It knows neither requests nor workers. /healthz says whether the front's loop turns; /readyz whether to send clips.
"""

from __future__ import annotations

import errno
import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST

from decode_server.service.lifecycle import State
from framefeed.errors import BadInput
from framefeed.page_server import Page, PageServer
from framefeed.show_value import show_value

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
        self,
        host: str,
        port: int,
        *,
        status: Callable[[], Status],
        metrics: Callable[[], bytes],
        refused: Callable[[str, str], None] | None = None,
    ) -> None:
        """`host` is an address of this machine, in the form of parse_metrics_host; `refused` is PageServer's."""
        try:
            self._http = PageServer(host, port, get=Pages(status, metrics).get, refused=refused)
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is in use; wanted a free port, or 0 for any" if in_use else f"cannot be opened ({error})"
            raise BadInput(f"{port} of {host} {why}", of="metrics", field="metrics_port") from None
        self.url = self._http.url
        self.port = int(self.url.rpartition(":")[2])

    def close(self) -> None:
        """Stop answering. Blocks up to a second. Idempotent."""
        self._http.close()


def parse_metrics_host(host: str) -> str:
    """The IP address that --metrics-host names. Raises BadInput for what is none."""
    named = {"localhost": "127.0.0.1", "*": "0.0.0.0"}.get(host, host.strip("[]"))  # noqa: S104 - its user says so
    try:
        return str(ipaddress.ip_address(named))
    except ValueError:
        raise BadInput(f"--metrics-host: {show_value(host)} is no IP address, 'localhost' or '*'") from None


class Pages:
    """What each path answers."""

    def __init__(
        self, status: Callable[[], Status], metrics: Callable[[], bytes], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._status = status
        self._metrics = metrics
        self._clock = clock

    def get(self, path: str) -> Page:
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


def _plain(code: int, text: str) -> Page:
    return code, "text/plain; charset=utf-8", (text + "\n").encode()
