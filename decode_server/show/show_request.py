"""Which requests `framefeed show` is asked for: from options, from a list of samples, or from a file of requests.

Text in, ClipRequests out; it opens no media. Policies are written `name:field=value,field=value`, with the names and
fields of the wire: `dense:frames=16,stride=4`, `random_resized:scale=[0.5,1.0]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from msgspec import ValidationError, convert
from msgspec.structs import fields

from framefeed.errors import BadInput, BadRequest
from framefeed.nearest_name import nearest_name
from framefeed.option_types import spelled
from framefeed.policy import Policy
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


def checked_policy(text: str, kinds: UnionType, *, field: str) -> dict[str, Any]:
    """The same of a policy that is one of `kinds`, with values that it takes; the option is that of Show's `field`.

    Raises BadInput, naming what is wrong in it and what is wanted.
    """
    try:
        body = policy_from_text(text)
    except BadInput as error:
        raise error.said_by(f"show: --{field}") from None
    is_text = f"is {show_value(text)}"
    by_name = {kind.__struct_config__.tag: kind for kind in get_args(kinds)}
    kind = by_name.get(body["policy"])
    if kind is None:
        hint = _nearest(body["policy"], list(by_name))
        raise BadInput(f"{is_text}: there is no policy {show_value(body['policy'])}; {hint}", of="show", field=field)
    hints = get_type_hints(kind)
    for name, value in body.items():
        if name == "policy":
            continue
        if name not in hints:
            hint = _nearest(name, kind.__struct_fields__)
            raise BadInput(f"{is_text}: {body['policy']} has no {show_value(name)}; {hint}", of="show", field=field)
        try:
            convert(value, hints[name])
        except ValidationError:
            seen = value if isinstance(value, str) else json.dumps(value)
            wanted = f"{name} is {show_value(seen)}, wanted {spelled(hints[name])}"
            raise BadInput(f"{is_text}: {wanted}", of="show", field=field) from None
    needed = [one.name for one in fields(kind) if one.required and one.name not in body]
    if needed:
        raise BadInput(f"{is_text}: wanted {' and '.join(needed)} too: {_spelling(kind)}", of="show", field=field)
    try:
        convert(body, kind)
    except (BadRequest, ValidationError) as error:
        raise BadInput(f"{is_text}: {str(error).removeprefix(f'{field}: ')}", of="show", field=field) from None
    return body


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


def _nearest(name: str, names: Sequence[str]) -> str:
    near = nearest_name(name, names)
    return f"did you mean {near}?" if near else f"wanted one of {', '.join(names)}"


def _spelling(kind: type[Policy]) -> str:
    """How a policy is typed: NAME:field=…,[field=…]."""
    parts = [f"{one.name}=…" if one.required else f"[{one.name}=…]" for one in fields(kind)]
    return f"{kind.__struct_config__.tag}:{','.join(parts)}"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
