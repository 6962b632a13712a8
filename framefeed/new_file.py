"""Writes files that are whole or not there: nobody can put a link in the way, and a killed writer leaves nothing.

Until it takes its place a new file has no name at all where the file system can do that (local ones can, NFS cannot),
and elsewhere one that nobody can guess. It knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from framefeed.errors import BadInput
from framefeed.regular_file import strange_kind

_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_PART = re.compile(r".+\.[0-9a-f]{16}\.part")
_LEFT_OVER_S = 3600.0  # a file that nobody wrote to for so long is of a writer that was killed


class NewFile:
    """Write to `file`, then `take_place`; without that nothing is left. `with` closes it, and what goes wrong within
    it for want of room names the path.
    """

    def __init__(self, path: Path) -> None:
        """For a file at `path`, in a folder that exists. Raises OSError if nothing can be written there."""
        self._path, self._name = path, path.name
        self._part = ""  # the name it has meanwhile
        self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.file: BinaryIO = os.fdopen(self._open(), "w+b")
        except OSError:
            os.close(self._folder)
            raise

    def take_place(self, name: str = "", *, sync: bool = True) -> None:
        """Let it be the file at its path, or at another name there, in the place of what that was: a link is replaced,
        never followed. Blocks until it is on storage, unless not `sync`. Raises OSError; then nothing has changed.
        """
        self.file.flush()
        if sync:
            os.fsync(self.file.fileno())
        if not self._part:
            part = self._guess()
            own = f"/proc/self/fd/{self.file.fileno()}"
            os.link(own, part, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=True)
            self._part = part
        os.rename(self._part, name or self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._part = ""
        self.file.close()

    def close(self) -> None:
        """Let go of it; of what did not take its place nothing is left. Idempotent."""
        with contextlib.suppress(OSError):
            self.file.close()
        if self._folder >= 0:
            if self._part:
                with contextlib.suppress(OSError):
                    os.unlink(self._part, dir_fd=self._folder)
            os.close(self._folder)
            self._folder, self._part = -1, ""

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, OSError) and error.filename is None:  # what writes to a descriptor knows no name
            error.filename = str(self._path)

    def _open(self) -> int:
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
        part = self._guess()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o666, dir_fd=self._folder)
        self._part = part
        return descriptor

    def _guess(self) -> str:
        return f"{self._name}.{secrets.token_hex(8)}.part"


def write_whole(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that a reader finds the old one or the new one, and no half of one. Raises OSError."""
    with NewFile(path) as new:
        new.file.write(data)
        new.take_place(sync=sync)


def sync_path(path: Path) -> None:
    """Have what lies at a path, a file or a folder, on storage. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_place(path: Path | None, *, option: str, read: Iterable[Path] = ()) -> None:
    """Raise BadInput if no file can be made at a path that an option names, if there lies what a new file must not take
    the place of (a device, a pipe), or if it is one of the files that are `read`, by whatever name: before work whose
    result it is to have.
    """
    if path is None:
        return
    folder = path.parent
    kind = strange_kind(path)
    why = f"it is {kind}" if kind else "" if folder.is_dir() else f"{folder} is no folder"
    if not why and not os.access(folder, os.W_OK):
        why = f"{folder} may not be written"
    if not why and path.exists():
        same = next((one for one in read if one.exists() and one.samefile(path)), None)
        why = f"it is {same}, which is read" if same else ""
    if why:
        raise BadInput(f"{option} {path} cannot be written: {why}")


def drop_leftovers(folder: Path) -> None:
    """Remove what killed writers left, an hour old, where a file system knows no files without a name. A folder that
    cannot be listed keeps it.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not _PART.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > _LEFT_OVER_S:
                    os.unlink(entry.path)
