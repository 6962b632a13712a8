"""The files below a folder that may be videos, and an account of all that is left out: the one walk of every verb.

Nothing ends it: a folder that cannot be listed, a link that leads nowhere or out of the tree is one line in the result.
Links that stay inside the tree are followed, others only on demand. A folder is entered once, however many links lead
there, so it ends, in linear time. It opens no file.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from decode_server.sources.file_names import for_people

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"}
)
OWN_PREFIX = "framefeed."  # of what framefeed itself writes into a root
_OWN_NAMES = frozenset({"chunks.json"})
HIDDEN = "hidden"
NO_SUFFIX = "no suffix"
_SUFFIX_CHARS = 16  # a longer one is part of a name with a dot in it


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkRules:
    """What to take: files of `VIDEO_SUFFIXES` or, with `all_files`, all; links out of the tree if `follow_links`; but
    nothing below `leave_out`.
    """

    all_files: bool = False
    follow_links: bool = False
    leave_out: Path | None = None


@dataclass(slots=True, kw_only=True)
class Tree:
    """What a walk found: files as paths below the folder, sorted; per path that is not used, why; how many files of
    which suffix were passed over; and the folders outside the tree that files taken through links lie in.
    """

    files: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    outside: set[str] = field(default_factory=set)


def is_video_name(name: str) -> bool:
    """Whether a file of this name is looked into without being asked to."""
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def walk(folder: Path, rules: WalkRules, *, skip_folder: Callable[[Path], str] = lambda _: "") -> Tree:
    """Everything below a folder that exists; `skip_folder` says of one below it why it is not entered, "" if it is.

    Blocks on the storage. Raises OSError only where `folder` itself cannot be looked up.
    """
    walker = _Walker(folder, rules, skip_folder)
    walker.run()
    walker.tree.files.sort()
    return walker.tree


class _Walker:
    """One walk: real folders first, then what links lead to, so that a folder is found by its own name."""

    def __init__(self, folder: Path, rules: WalkRules, skip_folder: Callable[[Path], str]) -> None:
        self.tree = Tree()
        self._top, self._rules, self._skip_folder = folder, rules, skip_folder
        self._real = os.path.realpath(folder, strict=True)
        self._left_out = os.path.realpath(rules.leave_out) if rules.leave_out else ""
        self._entered: set[tuple[int, int]] = set()
        self._folders, self._linked = [""], list[str]()

    def run(self) -> None:
        while self._folders or self._linked:
            if self._folders:
                self._list(self._folders.pop())
            else:
                self._follow(self._linked.pop(0))

    def _list(self, below: str) -> None:
        """Sort the entries of one folder into what the tree says of them."""
        path = os.path.join(self._top, below)
        try:
            found = os.stat(path)
            if (found.st_dev, found.st_ino) in self._entered:
                return
            self._entered.add((found.st_dev, found.st_ino))
            if self._left_out and os.path.realpath(path) == self._left_out:
                return
            if below and (why := self._skip_folder(Path(path))):
                self.tree.refused[below] = why
                return
            with os.scandir(path) as entries:
                for entry in entries:
                    self._sort(entry, os.path.join(below, entry.name))
        except OSError as error:
            self.tree.refused[below or "."] = f"this folder cannot be listed ({error.strerror})"

    def _sort(self, entry: os.DirEntry[str], below: str) -> None:
        """Raises OSError where the storage says so."""
        if entry.name.startswith("."):
            self.tree.ignored[HIDDEN] += 1
        elif entry.name.startswith(OWN_PREFIX) or entry.name in _OWN_NAMES:
            return
        elif entry.is_symlink():
            self._link(below)
        elif entry.is_dir(follow_symlinks=False):
            self._folders.append(below)
        else:
            self._file(below, regular=entry.is_file(follow_symlinks=False))

    def _link(self, below: str) -> None:
        path = os.path.join(self._top, below)
        try:
            target = os.path.realpath(path, strict=True)
            mode = os.stat(target).st_mode
        except OSError as error:
            if self._is_wanted(below):
                self.tree.refused[below] = f"is a link to {_leads_to(path)}, which cannot be used ({error.strerror})"
            else:
                self._file(below, regular=True)
            return
        if stat.S_ISDIR(mode):
            self._linked.append(below)
        elif not stat.S_ISREG(mode) or not self._is_wanted(below) or self._may_enter(below, target):
            self._file(below, regular=stat.S_ISREG(mode))
            if stat.S_ISREG(mode) and self._is_wanted(below) and not self._is_inside(target):
                self.tree.outside.add(os.path.dirname(target))

    def _follow(self, below: str) -> None:
        target = os.path.realpath(os.path.join(self._top, below))
        left_out = bool(self._left_out) and _is_below(target, self._left_out)
        if not left_out and self._may_enter(below, target):
            if not self._is_inside(target):
                self.tree.outside.add(target)
            self._folders.append(below)

    def _may_enter(self, below: str, target: str) -> bool:
        if self._rules.follow_links or self._is_inside(target):
            return True
        self.tree.refused[below] = (
            f"is a link to {for_people(target)}, outside of {for_people(self._real)}; wanted a link that stays inside, "
            "or --follow-links"
        )
        return False

    def _is_inside(self, target: str) -> bool:
        return _is_below(target, self._real)

    def _is_wanted(self, below: str) -> bool:
        return self._rules.all_files or is_video_name(below)

    def _file(self, below: str, *, regular: bool) -> None:
        if self._is_wanted(below) and (regular or is_video_name(below)):
            self.tree.files.append(below)
        else:
            self.tree.ignored[_suffix(below)] += 1


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _leads_to(link: str) -> str:
    try:
        return for_people(os.readlink(link))
    except OSError:
        return "nowhere"


def _suffix(below: str) -> str:
    suffix = for_people(PurePosixPath(below).suffix.lower())
    return suffix if 0 < len(suffix) <= _SUFFIX_CHARS else NO_SUFFIX
