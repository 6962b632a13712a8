"""A folder in which commands go wrong: an indexed root, one that is not, an empty one, junk, and a file."""

from __future__ import annotations

from pathlib import Path

from decode_server.indexing.index import build_index
from tests.videos import make_numbered_video


def furnish(place: Path) -> None:
    """Make all of it."""
    for folder in ("root", "plain"):
        make_numbered_video(place / folder / "a.mp4", frames=10)
    build_index(place / "root")
    for folder in ("empty", "junk"):
        (place / folder).mkdir()
    (place / "junk/a.mp4").write_text("nonsense")
    (place / "file").write_text("x")
