"""Valid files made strange: bytes changed, cut, doubled; values of a structure replaced, dropped or nested."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

_INTEGERS = st.sampled_from([0, 1, -1, 255, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, -(1 << 63), 1 << 70])
_FLOATS = st.sampled_from([0.0, -0.0, -1.0, 1e-320, 1e300, float("inf"), float("nan")])
_TEXTS = st.sampled_from(
    ["", "x", "../../etc/passwd", "/etc/passwd", "http://x", "\0", "\n\x1b[2J", "é" * 5000, "9" * 500]
)


def _nested(depth: int) -> list[Any]:
    body: list[Any] = []
    for _ in range(depth):
        body = [body]
    return body


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    _INTEGERS,
    _FLOATS,
    _TEXTS,
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.integers(1, 400).map(_nested),
    st.lists(st.one_of(_INTEGERS, _FLOATS, _TEXTS), max_size=4),
    st.dictionaries(st.text(max_size=5), _INTEGERS, max_size=3),
)
"""Any value where another one was expected; what JSON and msgpack can say."""


@st.composite
def mangled(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of a valid file, a few of them changed, taken away, put in or doubled."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(("change", "cut", "drop", "insert", "double"))):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 64))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


@st.composite
def restructured(draw: st.DrawFn, body: Any) -> Any:
    """A structure of dictionaries and lists with one of its values, at any depth, replaced, dropped or added."""
    body = copy.deepcopy(body)
    node = body
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return draw(STRANGE) if node is body else body
        key = draw(st.sampled_from(keys))
        deeper = isinstance(node[key], dict | list) and bool(node[key])
        if not (deeper and draw(st.booleans())):
            break
        node = node[key]
    match draw(st.sampled_from(("replace", "replace", "drop", "add"))):
        case "replace":
            node[key] = draw(STRANGE)
        case "drop":
            del node[key]
        case "add" if isinstance(node, dict):
            node[draw(st.text(max_size=8))] = draw(STRANGE)
        case "add":
            node.append(draw(STRANGE))
    return body
