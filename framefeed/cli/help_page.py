"""What --help prints: pages of 80 columns; the first one has what most need, --help-all has all. Parses nothing.

A verb whose options are too many for one screen says in `FIRST_OPTIONS` which are on the first; required ones are.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from framefeed.cli.option_fields import OptionField, option_fields

COLUMNS, FIRST_LINES = 80, 40
_INDENT, _LEFT = 2, 22


def help_page(kind: type, name: str, *, default: object = None, about: str | None = None, whole: bool = False) -> str:
    """The page of the verb `name`, whose options are the fields of `kind`; `about` is what it does, None: what the
    class says. The `whole` has every option and every word of both.
    """
    options = option_fields(kind, default)
    first = tuple(getattr(kind, "FIRST_OPTIONS", ()))
    whole = whole or not first
    shown = [one for one in options if whole or one.default is None or one.name in first]
    shown.sort(key=lambda one: first.index(one.name) if one.name in first and not whole else -1)
    places = [one for one in shown if not one.flags]
    lines = [_usage(name, options), ""]
    lines += _paragraphs((inspect.getdoc(kind) or "") if about is None else about, whole=whole)
    for one in places:
        lines += _entry(one.name, _sentences(one, whole=whole))
    of = None
    for one in (one for one in shown if one.flags):
        if of is None or (whole and one.of != of):
            of = one.of
            lines += ["", *_wrapped(_heading(of, whole=whole))]
        lines += _entry(_typed(one), _sentences(one, whole=whole))
    left = len(options) - len(shown)
    if left:
        lines += ["", *_wrapped(f"framefeed {name} --help-all has {left} more options.")]
    return "\n".join(lines)


def columns_page(rows: Iterable[tuple[str, str]], *, left: int = _LEFT) -> list[str]:
    """Lines of names with what there is to say of each beside it."""
    return [line for name, text in rows for line in _entry(name, text, left=left)]


def _heading(of: str, *, whole: bool) -> str:
    return f"{of.rstrip('.')}:" if of and whole else "options:"


def _usage(name: str, options: Sequence[OptionField]) -> str:
    parts = [one.name + ("…" if one.value.endswith("…") else "") for one in options if not one.flags]
    parts += [f"{one.name} {_letter(one)}" for one in options if one.flags and one.default is None]
    usage = f"usage: framefeed {' '.join([name, *parts])} [options]"
    return textwrap.fill(usage, COLUMNS, subsequent_indent=" " * 17, break_long_words=False, break_on_hyphens=False)


def _letter(one: OptionField) -> str:
    """What stands for a value in the usage line."""
    return one.name.rpartition(".")[2].strip("-").upper() if one.choices else one.value


def _typed(one: OptionField) -> str:
    flags = one.flags[:1] if one.is_switch and one.default != "on" else one.flags
    return f"{', '.join(flags)} {one.value}".rstrip()


def _sentences(one: OptionField, *, whole: bool) -> str:
    text = " ".join(one.about.split()) if whole else one.first_words
    return (
        f"{text} (required)"
        if one.default is None and whole
        else f"{text} (default: {one.default})"
        if one.default
        else text
    )


def _entry(name: str, text: str, *, left: int = _LEFT) -> list[str]:
    """A name and its text beside it, or from the next line on where the name is long."""
    indent = " " * (_INDENT + left)
    lines = _wrapped(text, indent=indent)
    if len(name) < left:
        return [f"{' ' * _INDENT}{name:<{left}}{lines[0].lstrip() if lines else ''}".rstrip(), *lines[1:]]
    return [*_wrapped(name.replace(",", ", ") if len(name) > COLUMNS - _INDENT else name, indent=" " * _INDENT), *lines]


def _paragraphs(text: str, *, whole: bool) -> Iterator[str]:
    """Wrapped paragraphs, each with an empty line behind it; what is indented are commands."""
    blocks = text.split("\n\n")
    for block in blocks if whole else blocks[:1]:
        yield from _commands(block) if block.startswith(" ") else _wrapped(block)
        yield ""


def _commands(block: str) -> Iterator[str]:
    """Command lines as they are, but that long ones go on behind a backslash."""
    for line in block.splitlines():
        rest = line
        while len(rest) > COLUMNS:
            at = rest.rindex(" ", 0, COLUMNS - 1)
            yield f"{rest[:at]} \\"
            rest = " " * 8 + rest[at + 1 :]
        yield rest


def _wrapped(text: str, *, indent: str = "") -> list[str]:
    flat = " ".join(text.split())
    return textwrap.wrap(
        flat, COLUMNS, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
