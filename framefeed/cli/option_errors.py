"""What is wrong with options, in one line: which, what was seen, what is wanted. It knows tyro's complaint as a text.

Most is found from the arguments and the fields alone; the complaint tells what kind of trouble it is, and is the line
where neither says more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from framefeed.cli.option_fields import OptionField
from framefeed.errors import BadInput
from framefeed.nearest_name import nearest_name
from framefeed.show_value import show_value

_HELP = re.compile(r"(For full helptext, (run|see)\b.*|Argument helptext:.*)")


def explain(box: str, fields: Sequence[OptionField], args: Sequence[str]) -> str:
    """tyro's framed complaint about `args` as one line that names options as they are typed."""
    text = plain_text(box)
    by_flag = {flag: one for one in fields for flag in one.flags}
    if text.startswith(("Missing from", "Required options", "The following arguments are required")):
        return _missing(text, fields)
    if strange := _strange(args, by_flag):
        near = nearest_name(strange, by_flag)
        return f"there is no option {strange}; " + (
            f"did you mean {near}?" if near else "--help-all lists what there is"
        )
    if text.startswith("Unrecognized options"):
        return _too_many(text, fields)
    named = re.search(r"(?:Error parsing|argument) '?(--[\w.-]+|\w+)", text)
    one = by_flag.get(named[1]) if named else None
    if one is None and named:
        one = next((place for place in fields if not place.flags and place.name == named[1].upper()), None)
    return _bad_value(one, args) if one else _HELP.sub("", text).strip()


def as_typed(error: BadInput, fields: Sequence[OptionField]) -> BadInput:
    """What is wrong with a field, said of the option that sets it, where one of `fields` does and no other would."""
    typed = error.field.replace("_", "-")
    found = [one.name for one in fields if typed in map(_leaf, one.flags or (_place(one.name),))]
    return error.renamed(found[0], of="") if len(found) == 1 else error


def _leaf(flag: str) -> str:
    """An option without the groups it is in: of --data.split that is split."""
    return flag.lstrip("-").rpartition(".")[2]


def _place(name: str) -> str:
    """What is typed without an option, ROOT, as its field is spelled."""
    return name.lower().replace("_", "-")


def plain_text(box: str) -> str:
    """A framed complaint as one line: frame and title go, the sentences stay; a frame may be of blanks."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    if len(lines) > 1 and re.fullmatch("-+", lines[1]):  # a title over a rule, where the output's encoding has no frame
        lines = lines[2:]
    kept = [line.strip("│┃─ ") for line in lines if not line.startswith(("╭", "╰"))]
    kept = [line for line in kept if not re.fullmatch("-*|framefeed .*--help", line)]
    return re.sub(r"\s+", " ", " ".join(kept)) or "the options do not parse"


def _missing(text: str, fields: Sequence[OptionField]) -> str:
    """The required ones of which the complaint has the words."""
    squeezed = re.sub(r"\s", "", text)
    lacking = [one for one in fields if one.default is None and re.sub(r"\s", "", one.about)[:40] in squeezed]
    meant = ", ".join(f"{one.name} ({one.wanted if one.choices else one.first_words.rstrip('.')})" for one in lacking)
    return f"missing {meant}" if lacking else text


def _strange(args: Sequence[str], by_flag: dict[str, OptionField]) -> str:
    """The first argument that looks like an option and is none."""
    for arg in args:
        flag = arg.partition("=")[0]
        if re.match(r"--?[A-Za-z]", flag) and flag.replace("_", "-") not in by_flag and flag not in ("-h", "--help"):
            return flag
    return ""


def _too_many(text: str, fields: Sequence[OptionField]) -> str:
    seen = text.removeprefix("Unrecognized options:").partition("Perhaps you meant")[0]
    seen = _HELP.sub("", seen).strip()
    places = " ".join(one.name for one in fields if not one.flags) or "options alone"
    return f"{show_value(seen)} is more than is taken; wanted {places}"


def _bad_value(one: OptionField, args: Sequence[str]) -> str:
    given = _given(one, args)
    if not given:
        return f"{one.name} has no value, wanted {one.wanted}"
    near = nearest_name(given[0], one.choices)
    hint = f"; did you mean {near}?" if near else ""
    return f"{one.name} is {' '.join(map(show_value, given))}, wanted {one.wanted}{hint}"


def _given(one: OptionField, args: Sequence[str]) -> list[str]:
    """What stands behind an option in the line, up to the next one."""
    values: list[str] = []
    for at, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if flag.replace("_", "-") in one.flags:
            rest = args[at + 1 :]
            stop = next((n for n, other in enumerate(rest) if re.match(r"--[A-Za-z]", other)), len(rest))
            values = [value] if equals else list(rest[: stop if "…" in one.value or " " in one.value else min(stop, 1)])
    return values
