"""Which requests `framefeed show` is asked for: from options, from a list of samples, or from a file of requests.

Text in, ClipRequests out; it opens no media. Policies are written `name:field=value,field=value`, with the names and
fields of the wire: `dense:frames=16,stride=4`, `random_resized:scale=[0.5,1.0]`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from framefeed.errors import BadInput, BadRequest
from framefeed.request import ClipRequest
from framefeed.show_value import show_value
from framefeed.wire import request_from_map

_FIELD = re.compile(r"(\w+)=(\[[^\]]*\]|[^,\[\]]*)(?:,|$)")
_MAX_REQUESTS = 1000


def policy_from_text(text: str) -> dict[str, Any]:
    """The map that spells a policy on the wire. Raises BadInput if it is not written as this file says."""
    name, _, rest = text.partition(":")
    body: dict[str, Any] = {}
    at = 0
    for match in _FIELD.finditer(rest):
        if match.start() == at:
            body[match[1]] = _value(match[2])
            at = match.end()
    if at != len(rest) or not name:
        raise BadInput(
            f"policy {show_value(text)} does not read, from {show_value(rest[at:] or text)} on; "
            "wanted NAME:field=value,…"
        )
    return {"policy": name, **body}


def build_request(body: dict[str, Any], *, where: str) -> ClipRequest:
    """The request that a map spells. Raises BadInput, naming `where` it stands."""
    try:
        return request_from_map(body)
    except BadRequest as error:
        raise BadInput(f"{where}: {str(error).removeprefix('wire: ')}") from None


def read_requests(path: Path) -> list[ClipRequest]:
    """The requests of a JSON file: a list of maps as the wire spells them, or one. Raises BadInput."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"requests {path} cannot be read ({error}); wanted a JSON list of requests") from None
    bodies = found if isinstance(found, list) else [found]
    if not 1 <= len(bodies) <= _MAX_REQUESTS or not all(isinstance(body, dict) for body in bodies):
        raise BadInput(f"requests {path} hold no list of 1 to {_MAX_REQUESTS} JSON maps")
    return [build_request(body, where=f"requests {path}, number {i}") for i, body in enumerate(bodies)]


def sample_at(path: Path, index: int) -> dict[str, Any]:
    """The video and span at an index from 0 of a dataset written as JSON lines. Raises BadInput."""
    try:
        with path.open() as lines:
            line = next((line for number, line in enumerate(lines) if number == index), None)
        if line is None:
            raise BadInput(f"samples {path}: there is no line for index {index}")
        sample = json.loads(line)
        return {name: sample[name] for name in ("video", "start_s", "end_s")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        wanted = "wanted JSON lines with video, start_s and end_s"
        raise BadInput(f"samples {path}, index {index}, cannot be read ({error}); {wanted}") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
