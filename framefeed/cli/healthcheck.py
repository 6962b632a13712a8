"""The verb `healthcheck`: asks a process's HTTP port whether it is ready; it knows nothing of what the process does.

For engines that probe by a command, in images that have no curl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from framefeed.cli.http_page import MOST_LIMIT_S, get_answer
from framefeed.errors import BadInput, FramefeedError
from framefeed.page_place import SERVER
from framefeed.show_value import show_value

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
        """Ask once, for at most `timeout_s` for the name, to be connected, and for the answer each. Raises
        FramefeedError unless that is framefeed's and 200, BadInput for a URL or time that cannot be used.
        """
        if not 0 < self.timeout_s <= MOST_LIMIT_S:
            raise BadInput(f"--timeout-s is {self.timeout_s:g}, wanted more than 0 and at most {MOST_LIMIT_S:g}")
        answer = get_answer(self.url, limit_s=self.timeout_s, most_bytes=_LINE_BYTES)
        if answer.status != 200:
            said = " ".join(answer.body.decode(errors="replace").split())
            raise FramefeedError(f"{self.url} answers {answer.status}, wanted 200: {said}")
        if answer.server != SERVER:
            who = f"{show_value(answer.server)} answers there" if answer.server else "what answers there gives no name"
            raise FramefeedError(f"{self.url} is no page of framefeed: {who}, wanted {show_value(SERVER)}")
