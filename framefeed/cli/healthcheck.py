"""The verb `healthcheck`: asks a process's HTTP port whether it is ready; it knows nothing of what the process does.

For engines that probe by a command, in images that have no curl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from framefeed.cli.http_page import get_page
from framefeed.errors import BadInput, FramefeedError

READY_URL = "http://127.0.0.1:9555/readyz"  # a decode server's, at its default --metrics-port
_LINE_BYTES = 300


@dataclass(frozen=True, kw_only=True)
class Healthcheck:
    """Ask a process whether it is ready: exit code 0 or 1.

    Where it is not, one line says why.
    """

    url: Annotated[str, tyro.conf.Positional] = READY_URL
    """What to ask: /readyz or /healthz of a decode server, /metrics of a trainer."""
    timeout_s: float = 3.0
    """The answer may take so long."""

    def run(self) -> None:
        """Ask once, for at most `timeout_s` to be connected and as long again for the answer. Raises FramefeedError
        unless that is 200, BadInput for a URL or time that cannot be used.
        """
        if not self.timeout_s > 0:
            raise BadInput(f"--timeout-s is {self.timeout_s:g}, wanted more than 0")
        status, body = get_page(self.url, limit_s=self.timeout_s, most_bytes=_LINE_BYTES)
        if status != 200:
            said = " ".join(body.decode(errors="replace").split())
            raise FramefeedError(f"{self.url} answers {status}, wanted 200: {said}")
