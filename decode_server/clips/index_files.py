"""Whether the index of a folder is still the one that was opened: told from the manifest's header and two stats.

It reads no entries and knows no clips; what a change means for a server is the caller's to say.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from framefeed.manifest import MANIFEST_NAME, PACKETS_NAME, read_identity

_HALF = f"has another {PACKETS_NAME} since, with the same manifest: it is being indexed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStamp:
    """What changes when a file is replaced or written to."""

    inode: int
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFiles:
    """The two files of an index at one look: the identity in the manifest's header, and a stamp of each."""

    identity: str
    manifest: FileStamp
    packets: FileStamp

    def pack(self) -> bytes:
        """As bytes, for another process."""
        return msgspec.msgpack.encode(self)

    def replaced_by(self, now: IndexFiles, *, identity: str) -> str:
        """Why what lies there `now` is not the data set `identity`, which was opened from these files; "" if it is.

        An index that was made again and says the same is the same.
        """
        same = identity in ("", now.identity) or not now.identity  # else it was opened before from others
        if same and now.manifest == self.manifest:
            return ""
        if identity and now.identity == identity and now.packets.size_bytes == self.packets.size_bytes:
            return ""
        before, after = identity or "unknown", now.identity or "unknown"
        return f"was indexed again since: the data set was {before}, it is {after} now"

    def half_replaced_by(self, now: IndexFiles) -> str:
        """Why the packet indices may be others than the manifest's: they were replaced and it was not, or not yet."""
        return _HALF if now.manifest == self.manifest and now.packets != self.packets else ""

    def half_replaced_since(self, since_s: float) -> str:
        """The same, for who opened these files when that had happened already: the manifest is the last to be written.
        Files that were only copied in another order are older than `since_s`, by the wall clock.
        """
        return _HALF if self.packets.mtime_ns > max(self.manifest.mtime_ns, since_s * 1e9) else ""


def unpack_look(packed: bytes) -> IndexFiles:
    """What `pack` gave."""
    return msgspec.msgpack.decode(packed, type=IndexFiles)


def look(folder: Path) -> IndexFiles:
    """The index files of a folder now. Blocks on the storage. Raises OSError, and BadInput for a damaged header."""
    manifest = _stamp(folder / MANIFEST_NAME)
    return IndexFiles(identity=read_identity(folder), manifest=manifest, packets=_stamp(folder / PACKETS_NAME))


def _stamp(path: Path) -> FileStamp:
    status = os.stat(path)
    return FileStamp(inode=status.st_ino, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
