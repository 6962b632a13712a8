"""A folder that may not be searched is said to be so: nobody is told that what may lie in it is missing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from decode_server.chunking.find_sources import find_videos
from framefeed.errors import BadInput
from framefeed.manifest import check_indexed

NOBODY = 65534


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that others reach and may not search; not in tmp_path, whose folders nobody else reaches."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        inside = Path(folder) / "videos"
        inside.mkdir()
        inside.chmod(0o644)
        yield inside
        inside.chmod(0o755)


@contextmanager
def _not_root() -> Iterator[None]:
    """Root may search anything."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_root_and_a_source_in_a_closed_folder_are_not_called_missing(closed: Path) -> None:
    with _not_root():
        with pytest.raises(BadInput, match=r"cannot be looked at: Permission denied; wanted a folder that user .* may"):
            check_indexed(closed)
        with pytest.raises(BadInput, match=r"cannot be looked at: Permission denied"):
            find_videos([closed / "a.mp4"], None)
