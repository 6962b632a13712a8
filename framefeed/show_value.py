"""Values from outside in lines for people: bounded, on one line, and nothing in them that a terminal would obey.

For error messages, log lines and labels. It never calls `repr` on what it is given: that of nested values may end in a
RecursionError, or be as long as the message that brought them. It knows no errors and writes nothing.
"""

from __future__ import annotations

VALUE_CHARS = 80
LINE_CHARS = 300
_GAP = "…"
_MAX_INT_BITS = 128


def show_value(value: object, *, chars: int = VALUE_CHARS) -> str:
    """A value in at most `chars` characters: text in quotes, its middle left out where it is longer; numbers as they
    are; of anything else the type and how much it holds.
    """
    if isinstance(value, str):
        return f"'{one_line(value, chars=chars - 2)}'"
    if isinstance(value, bytes | bytearray | memoryview):
        shown = bytes(value[: chars // 4]).decode("ascii", "backslashreplace")
        return f"{len(value)} bytes '{one_line(shown, chars=chars // 2)}'"
    if value is None or isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= _MAX_INT_BITS else f"a number of {value.bit_length()} bits"
    kind = one_line(type(value).__name__, chars=chars // 2)
    return f"{kind} of {len(value)}" if isinstance(value, list | tuple | dict | set | frozenset) else kind


def show_bytes(count: float) -> str:
    """A number of bytes for people, in three digits or so: 3.41 GB, 27.0 MB, 912 B."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def one_line(text: str, *, chars: int = LINE_CHARS) -> str:
    """Text as one printable line of at most `chars` characters: controls, escapes, line ends, bidirectional marks and
    lone surrogates as Python spells them, and the middle left out where it is too long, since both ends of a message
    tell something: what it is about, and who says so.
    """
    if len(text) <= chars and text.isprintable():
        return text
    if len(text) > 2 * chars:  # more than could be kept, whatever is escaped
        text = text[:chars] + _GAP + text[-chars:]
    line = printable(text)
    if len(line) <= chars:
        return line
    tail = (chars - len(_GAP)) // 3
    return line[: chars - len(_GAP) - tail] + _GAP + line[len(line) - tail :]


def printable(text: str, *, keep: str = "") -> str:
    """Text with everything escaped that is not printable, but for the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
