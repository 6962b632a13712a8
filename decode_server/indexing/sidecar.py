"""Sidecar files: the packets of a stream, end to end, where its container does not hold them whole (as TS never does).

They lie beside the packet index, are written whole or not at all, and are never changed: a new version of the media
gets a new sidecar. It knows nothing of what is in a packet.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

SIDECAR_FOLDER = "framefeed.sidecars"


def sidecar_path(name: str, *, media_bytes: int, mtime_ns: int) -> str:
    """Path, relative to the index folder, of the sidecar of this version of the media file `name`."""
    version = hashlib.sha256(f"{name}\0{media_bytes}\0{mtime_ns}".encode()).hexdigest()[:32]
    return f"{SIDECAR_FOLDER}/{version}.packets"


@contextmanager
def sidecar_writer(path: Path) -> Iterator[BinaryIO]:
    """A file to write packets to, which takes its place at `path` only if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def drop_sidecars(index_folder: Path, *, keep: Collection[str]) -> None:
    """Remove the sidecars that no index points to any more; `keep` are paths relative to the index folder."""
    for path in (index_folder / SIDECAR_FOLDER).glob("*.packets"):
        if f"{SIDECAR_FOLDER}/{path.name}" not in keep:
            path.unlink(missing_ok=True)
