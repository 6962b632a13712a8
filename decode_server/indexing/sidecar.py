"""Sidecar files: the packets of a stream, end to end, where its container does not hold them whole (as TS never does).

They lie beside the packet index, are written whole or not at all, and are never changed: other packets get another
sidecar, the same packets the same one, so that a server that reads it finds it after the root was indexed again. It
knows nothing of what is in a packet.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from decode_server.media.demux import Demuxed
from framefeed.new_file import NewFile, drop_leftovers

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
SIDECAR_FOLDER = "framefeed.sidecars"


class NoRoom(Exception):
    """The index folder is full, or cannot be written to: nothing that a media file is to be refused for. With the errno
    and the words of the system.
    """

    @property
    def strerror(self) -> str:
        """What the system says."""
        return str(self.args[1])


def write_sidecar(index_folder: Path, name: str, write: Callable[[BinaryIO], Demuxed]) -> tuple[Demuxed, str]:
    """What `write` returns, the packets of the media file `name` as it wrote them one behind the other, and the path,
    relative to the index folder, of the sidecar that they lie in. There is none if it raises; NoRoom where it cannot be
    written.
    """
    folder = index_folder / SIDECAR_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with NewFile(folder / _hash(name)) as new:
            demuxed = write(new.file)
            found = f"{_hash(name, *(f'{row.size} {row.crc32}' for row in demuxed.rows))}.packets"
            new.take_place(found)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise NoRoom(error.errno, error.strerror) from None
        raise
    return demuxed, f"{SIDECAR_FOLDER}/{found}"


def drop_sidecars(index_folder: Path, *, keep: Collection[str]) -> None:
    """Remove the sidecars that no index points to any more; `keep` are paths relative to the index folder. What killed
    writers left goes too.
    """
    drop_leftovers(index_folder / SIDECAR_FOLDER)
    for path in (index_folder / SIDECAR_FOLDER).glob("*.packets"):
        if f"{SIDECAR_FOLDER}/{path.name}" not in keep:
            path.unlink(missing_ok=True)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
