"""Files that come into a folder all at once when all are whole, or not at all. It knows nothing of what they are."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framefeed.new_file import sync_path
from framefeed.new_folder import new_folder


@contextmanager
def whole_files(out: Path) -> Iterator[Path]:
    """Gives a hidden folder in `out`, which is made, to write files in; at the end of the block they are on storage and
    in `out`. Where the block raises, or that fails, none is, and `out` is gone again if it is new.

    Raises OSError.
    """
    with new_folder(out), tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=out) as made:
        yield Path(made)
        paths = sorted(Path(made).iterdir())
        for path in paths:
            sync_path(path)  # storage may be full no sooner than here
        moved: list[Path] = []
        try:
            for path in paths:
                os.replace(path, out / path.name)
                moved.append(out / path.name)
        except BaseException:
            for path in moved:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
