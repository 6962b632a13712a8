"""The verb `healthcheck`: asks a process's HTTP port whether it is ready; it knows nothing of what the process does.

For engines that probe by a command, in images that have no curl.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

import tyro

from framefeed.errors import BadInput, FramefeedError

READY_URL = "http://127.0.0.1:9555/readyz"  # a decode server's, at its default --metrics-port
_LINE_BYTES = 300


@dataclass(frozen=True, kw_only=True)
class Healthcheck:
    """Exit with 0 if a process says that it is ready, else with 1 and one line that says why."""

    url: Annotated[str, tyro.conf.Positional] = READY_URL
    """What to ask: /readyz or /healthz of a decode server, /metrics of a trainer."""
    timeout_s: float = 3.0
    """The answer may take so long."""

    def run(self) -> None:
        """Ask once, for at most `timeout_s` a step. Raises FramefeedError unless the answer is 200, BadInput for a URL
        or time that cannot be used.
        """
        if not self.timeout_s > 0:
            raise BadInput(f"--timeout-s is {self.timeout_s:g}, wanted more than 0")
        where = urlsplit(self.url)
        try:
            host, port = where.hostname, where.port
        except ValueError as error:
            raise BadInput(f"{self.url}: {error}; wanted http://HOST:PORT/PATH") from None
        if where.scheme != "http" or not host:
            raise BadInput(f"{self.url} is no address to ask; wanted http://HOST:PORT/PATH")
        connection = http.client.HTTPConnection(host, port or 80, timeout=self.timeout_s)  # by no proxy
        try:
            connection.request("GET", where.path or "/")
            answer = connection.getresponse()
            said = " ".join(answer.read(_LINE_BYTES).decode(errors="replace").split())
        except (OSError, http.client.HTTPException) as error:
            raise FramefeedError(f"{self.url} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if answer.status != 200:
            raise FramefeedError(f"{self.url} answers {answer.status}, wanted 200: {said}")
