"""Finds the verbs of the `framefeed` command through entry points, so it imports no package it does not run.

A verb is one word or two (`serve`, `bench decode`): a dataclass whose fields are its options (parsed by tyro) and whose
`run()` does the work; one that has a `parse()` reads its options itself. What goes wrong on purpose ends in one line on
stderr and a non-zero exit code, not in a traceback.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import functools
import inspect
import io
import os
import resource
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

import tyro

from framefeed.cli.help_page import columns_page, help_page
from framefeed.cli.interrupts import INTERRUPTED, raised
from framefeed.cli.log_lines import log_warnings
from framefeed.cli.option_errors import as_typed, explain
from framefeed.cli.option_fields import first_sentence, option_fields
from framefeed.cli.standard_streams import flush_stdout
from framefeed.errors import BadInput, FramefeedError
from framefeed.nearest_name import nearest_name
from framefeed.show_value import show_value

OptionsT = TypeVar("OptionsT")

# What a disk is like, not what a program did: full, read-only, another's, gone.
_STORAGE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG}
)
_HELP, _HELP_ALL = ("-h", "--help"), "--help-all"


class Verb(Protocol):
    """What an entry point of the group `framefeed.verbs` loads: a dataclass with a run method."""

    def run(self) -> None:
        """Do the work; raise a FramefeedError with one clear line if it cannot be done."""


@runtime_checkable
class ReadsItself(Protocol):
    """What an entry point loads instead, where a verb's options are not the fields of one dataclass."""

    def parse(self, args: list[str]) -> Verb:
        """The verb with its options. Raises BadInput, in one line, for what does not parse."""


def run_verb(args: list[str]) -> int:
    """Run one verb. Returns and raises as `main` of the command does."""
    log_warnings()
    try:
        verb = _read(args)
        if verb is None:
            return 2
        with raised(), _naming_options(type(verb), verb):
            verb.run()
    except FramefeedError as error:
        print(f"framefeed: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    except KeyboardInterrupt:
        print("framefeed: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        code = flush_stdout()
        why = _unusable(error)
        if code == 0 and not why:
            raise  # it is not stdout's, and no disk's
        if code == 0:
            print(f"framefeed: {why}", file=sys.stderr)
        return code or 1
    return 0


def _unusable(error: OSError) -> str:
    """What it says of this machine; empty where it says something of the program."""
    if error.errno == errno.EMFILE:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"this process may have {most} open files (ulimit -n) and wants more"
    is_of_storage = error.errno in _STORAGE and error.filename is not None
    return f"{error.filename} cannot be used: {error.strerror}" if is_of_storage else ""


def _read(args: list[str]) -> Verb | None:
    """The verb with its options; None where another process of the run says what is wrong with them.

    Raises as find_verb and parse_verb do; SystemExit after a page of help.
    """
    verbs = {point.name: point for point in entry_points(group="framefeed.verbs")}
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    if not args or args[0] in (*_HELP, _HELP_ALL, "--version"):
        print(f"framefeed {version('framefeed')}" if args[:1] == ["--version"] else _verbs_page(verbs))
        raise SystemExit(0 if args else 2)
    point, options = find_verb(verbs, args)
    try:
        return parse_verb(point, options)
    except BadInput:
        if args[0] == "train" and os.environ.get("RANK", "0") != "0":
            return None  # each of a run's processes reads the same options, and rank 0 speaks
        raise


def find_verb(verbs: dict[str, EntryPoint], args: list[str]) -> tuple[EntryPoint, list[str]]:
    """The verb that the arguments begin with, and the arguments behind it. Raises BadInput, with the nearest verb."""
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in verbs:
            return verbs[name], args[words:]
    family = [verb for verb in verbs if verb.startswith(args[0] + " ")]
    typed = " ".join(arg for arg in args[:2] if not arg.startswith("-")) if family else args[0]
    if family and typed == args[0]:
        raise BadInput(f"{typed} is a family of verbs; wanted one of {', '.join(sorted(family))}")
    near = nearest_name(typed, family or verbs)
    hint = f"did you mean {near!r}?" if near else f"wanted one of {', '.join(sorted(family or verbs))}"
    raise BadInput(f"unknown verb {show_value(typed)}; {hint}")


def parse_verb(point: EntryPoint, args: list[str]) -> Verb:
    """The verb with its options. Raises BadInput, in one line, for what does not parse or is not installed."""
    try:
        kind = point.load()
    except ModuleNotFoundError as error:
        hint = "pip install 'framefeed[trainer]'" if error.name == "torch" else "install the extra that brings it"
        raise BadInput(f"verb {show_value(point.name)} needs the package {show_value(error.name)}; {hint}") from None
    if isinstance(kind, ReadsItself):
        return kind.parse(args)
    return cast(Verb, parse_options(kind, args, name=point.name))


def parse_options(
    kind: type[OptionsT],
    args: list[str],
    *,
    name: str,
    default: OptionsT | None = None,
    about: str | None = None,
) -> OptionsT:
    """A dataclass from command-line options by tyro, those that are not given as in `default`, if there is one.

    `name` is the verb's, behind "framefeed", `about` what its help says first; None: the dataclass's words.
    Raises BadInput, in one line, for what does not parse; SystemExit after a page of help.
    """
    if not {*_HELP, _HELP_ALL}.isdisjoint(args):
        print(help_page(kind, name, default=default, about=about, whole=_HELP_ALL in args))
        raise SystemExit(0)
    cli = functools.partial(tyro.cli, kind, prog=f"framefeed {name}", args=args, use_underscores=False)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), _naming_options(kind, default):
            parsed = cli() if default is None else cli(default=default)
    except SystemExit:
        raise BadInput(f"{name}: {explain(complaint.getvalue(), option_fields(kind, default), args)}") from None
    return cast(OptionsT, parsed)


@contextlib.contextmanager
def _naming_options(kind: type, default: object) -> Iterator[None]:
    """What is wrong with a field is said of the option that sets it."""
    try:
        yield
    except BadInput as error:
        raise as_typed(error, option_fields(kind, default)) from None


def _verbs_page(verbs: dict[str, EntryPoint]) -> str:
    names = sorted(verbs, key=lambda name: (name.startswith("bench "), name))
    rows = [(name, _summary(verbs[name])) for name in names]
    lines = ["usage: framefeed VERB [options]", "", *columns_page(rows, left=17), ""]
    return "\n".join([*lines, "framefeed VERB --help shows a verb's options, framefeed --version the version"])


def _summary(point: EntryPoint) -> str:
    """The first sentence of a verb's class, read without importing its package."""
    spec = find_spec(point.module)
    if spec is None or spec.origin is None:
        return "not installed"
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == point.attr:
            return first_sentence(inspect.cleandoc(ast.get_docstring(node) or ""))
    return ""
