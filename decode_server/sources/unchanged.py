"""Whether a file still is what it was when its reading began: the one look behind each reading of a source. It knows no
verbs and keeps nothing.
"""

from __future__ import annotations

from pathlib import Path


def change_since(path: Path, *, size_bytes: int, mtime_ns: int) -> str:
    """Why what was read of a file is not used, empty where its size and its time of change are still those."""
    try:
        now = path.stat()
        now_bytes, now_ns = now.st_size, now.st_mtime_ns
    except OSError:
        now_bytes, now_ns = 0, 0
    if (now_bytes, now_ns) == (size_bytes, mtime_ns):
        return ""
    return f"changed while it was read ({size_bytes} to {now_bytes} bytes); try again when it is complete"
