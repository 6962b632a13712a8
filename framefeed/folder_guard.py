"""Says which folders others than this user could change: what lies there is read and believed, within limits."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path


def why_exposed(*, mode: int, owner: int, user: int) -> str:
    """Why others could change or replace what lies in a folder of this mode and owner; "" if only its user or root can.

    Pure. The members of its group are trusted: they are how people share data on purpose.
    """
    if owner not in (user, 0):
        return f"it belongs to user {owner}, not to {user} or root"
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return f"everybody may write there (mode {stat.S_IMODE(mode):o}), wanted 1777 or no other writers"
    return ""


def warn_if_exposed(folder: Path, *, what: str, log: logging.Logger) -> None:
    """One line in the log about a folder that others could change. Blocks on the storage for a stat; a folder that
    cannot be looked at is for who uses it to tell.
    """
    try:
        status = os.stat(folder)
    except OSError:
        return
    if why := why_exposed(mode=status.st_mode, owner=status.st_uid, user=os.geteuid()):
        log.warning("%s %s: others could change what is read from it: %s", what, folder, why)
