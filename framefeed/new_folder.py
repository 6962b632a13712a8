"""Folders that are made for a result: refused work takes them away again. It knows nothing of what is put there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder, and those above it that are not there; where the block raises, those of them go that are empty.

    Raises OSError where it cannot be made; then those above are gone again, too.
    """
    made: list[Path] = []
    try:
        for folder in reversed((path, *path.parents)):
            try:
                folder.mkdir()
            except OSError:
                if not folder.is_dir():  # which may be there by now, or be a root that none may write to
                    raise
            else:
                made.append(folder)
        yield
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # something is in it
                folder.rmdir()
        raise
