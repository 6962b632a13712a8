"""Well-formed bodies made strange from a seed: nested to every depth in every field, retyped, renamed, left out, bent.

Bodies are maps, lists and plain values; a spelling says how they become bytes. It knows no parser.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from framefeed.wire import MAX_HEADER_BYTES
from tests.integration.mangle import bent, noise, odd_value

Path = tuple[str | int, ...]
DEPTHS = 1024  # 0 to 1,023


@dataclass(frozen=True)
class Spelling:
    """How bodies become bytes, and what is nested so deep in it, as lists or as maps."""

    encode: Callable[[Any], bytes]
    lists: Callable[[int], bytes]
    maps: Callable[[int], bytes]
    extremes: tuple[bytes, ...]
    """Values that no Python value spells."""


MSGPACK = Spelling(
    encode=msgspec.msgpack.Encoder().encode,
    lists=lambda depth: b"\x91" * depth + b"\0",
    maps=lambda depth: b"\x81\xa1k" * depth + b"\0",
    extremes=(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc1", b"\x81\x91\xc0\xc0"),
)
JSON = Spelling(
    encode=msgspec.json.Encoder(enc_hook=str).encode,
    lists=lambda depth: b"[" * depth + b"0" + b"]" * depth,
    maps=lambda depth: b'{"k":' * depth + b"0" + b"}" * depth,
    extremes=(
        b"1e999",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b"9" * 5000,
        b'"\\ud800"',
        b'"' + b"\\u001b[2J" * 50 + b'"',
        b"{",
    ),
)


def paths_of(body: Any, at: Path = ()) -> Iterator[Path]:
    """The path of each value of a body, its own, which is empty, among them."""
    yield at
    if isinstance(body, dict):
        for name, value in body.items():
            yield from paths_of(value, (*at, name))
    elif isinstance(body, list | tuple):
        for place, value in enumerate(body):
            yield from paths_of(value, (*at, place))


def replaced(body: Any, path: Path, value: Any) -> Any:
    """The body with another value at a path."""
    if not path:
        return value
    changed = dict(body) if isinstance(body, dict) else list(body)
    changed[path[0]] = replaced(body[path[0]], path[1:], value)
    return changed


class Strange:
    """Strange versions of some bodies: half of them by number, each field of each body with each depth of nesting, and
    half by chance.
    """

    def __init__(self, bodies: Sequence[Any], spelling: Spelling) -> None:
        self._bodies, self._spelling = list(bodies), spelling
        seen: dict[tuple[Path, str], tuple[int, Path]] = {}
        for number, body in enumerate(self._bodies):
            for path in paths_of(body):
                seen.setdefault((path, type(_at(body, path)).__name__), (number, path))
        self._fields = list(seen.values())

    @property
    def every_depth(self) -> int:
        """Inputs after which each depth was tried in each field."""
        return 2 * DEPTHS * len(self._fields)

    def bytes_at(self, number: int, rng: random.Random) -> bytes:
        """Input `number`."""
        if number % 2:
            depth, field = divmod(number // 2, len(self._fields))
            body, path = self._fields[field]
            nest = self._spelling.maps if depth // DEPTHS % 2 else self._spelling.lists
            return self._spelling.encode(replaced(self._bodies[body], path, Raw(nest(depth % DEPTHS))))
        data = self._spelling.encode(self._retouched(rng))
        return bent(rng, data) if rng.random() < 0.3 else data

    def _retouched(self, rng: random.Random) -> Any:
        """One value of a body, at any depth, given another one, another name, or left out."""
        body = rng.choice(self._bodies)
        path = rng.choice(list(paths_of(body)))
        holder = _at(body, path[:-1]) if path else None
        match rng.randrange(6):
            case 0 if isinstance(holder, dict):
                return replaced(body, path[:-1], {name: value for name, value in holder.items() if name != path[-1]})
            case 1 if isinstance(holder, dict):
                return replaced(body, path[:-1], {**holder, str(odd_value(rng, 9))[:200]: odd_value(rng)})
            case 2 if isinstance(holder, list | tuple):
                return replaced(body, path[:-1], [*holder, *holder])
            case 3:
                return replaced(body, path, Raw(rng.choice(self._spelling.extremes)))
            case 4:
                nest = rng.choice((self._spelling.lists, self._spelling.maps))
                return replaced(body, path, Raw(nest(rng.randrange(MAX_HEADER_BYTES // 3))))
        return replaced(body, path, odd_value(rng))


def _at(body: Any, path: Path) -> Any:
    for step in path:
        body = body[step]
    return body


def odd_bytes(rng: random.Random, good: Sequence[bytes]) -> bytes:
    """Noise, or something good that was bent or put together with another."""
    match rng.randrange(4):
        case 0:
            return noise(rng)
        case 1:
            return rng.choice(good) + rng.choice(good)
    return bent(rng, rng.choice(good))
