"""The file that --report names: JSON lines, each of which has a state. It knows no reports' other fields, and no verb.

A file that is something else is somebody's, and is not replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.new_file import check_place

_OPTION = "--report"
_LINE_BYTES = 1 << 20  # more than any line of a report has


def check_report(path: Path | None, *, read: Iterable[Path] = ()) -> None:
    """Raise BadInput if no report can be written to `path`, if it is one of the files that are `read`, or if there is a
    file already that is neither empty nor an earlier report: before work whose report it is to have.
    """
    check_place(path, option=_OPTION, read=read)
    if path is not None and path.exists() and not _is_report(path):
        raise BadInput(f"{_OPTION} {path} is there already and is no report; wanted a new file, or an earlier report")


def _is_report(path: Path) -> bool:
    """Whether its first line is one of a report; so is none at all, and what is no file and keeps nothing."""
    if not path.is_file():
        return True
    try:
        with path.open("rb") as file:
            line = file.readline(_LINE_BYTES)
        row = json.loads(line) if line else {"state": ""}
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "state" in row
