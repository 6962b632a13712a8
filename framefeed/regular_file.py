"""Opens and reads files that anybody may have put there: regular ones, of bounded size, never waiting for a pipe.

On storage that many share, a pipe, a device or a file of any size may lie where a file of ours is expected. It knows
nothing of what is in a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

STRANGE = frozenset({errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.EISDIR, errno.EACCES, errno.ENXIO})
"""The errors of what lies there, and not of the storage: they do not pass by themselves."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def strange_kind(path: Path) -> str:
    """What lies at a path, by its links, that is no regular file, such as "a device"; "" for one, or for nothing."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def open_regular(path: Path, *, resolved: bool = False, links: bool = True) -> int:
    """A descriptor to read a regular file, which the caller closes. Never waits for a writer as a pipe would.

    With `resolved` the path has no links, and what was opened is that very file: a link that was put in its place, or
    in that of a folder above, between the look and the opening is refused. Without `links` the file itself must be
    none. Raises OSError: ELOOP for those, EINVAL for what is no regular file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = _KINDS.get(stat.S_IFMT(mode), "something else")
            raise OSError(errno.EINVAL, f"it is {kind}, wanted a regular file")
        opened = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
        if resolved and opened != str(path):
            raise OSError(errno.ELOOP, "a link took its place")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def opened_regular(path: Path, *, limit_bytes: int, links: bool = True) -> Iterator[BinaryIO]:
    """A regular file of at most so many bytes, open to read. Raises OSError as open_regular, EFBIG for a larger one."""
    with open(open_regular(path, links=links), "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > limit_bytes:
            raise OSError(errno.EFBIG, f"it has {size_bytes} bytes, wanted at most {limit_bytes}")
        yield file


def read_regular(path: Path, *, limit_bytes: int, links: bool = True) -> bytes:
    """All that is in a regular file, which takes no more memory than its size when it was opened.

    Raises OSError as opened_regular does; EFBIG too if it grew beyond the limit while it was read.
    """
    with opened_regular(path, limit_bytes=limit_bytes, links=links) as file:
        data = file.read(os.fstat(file.fileno()).st_size)
        while more := file.read(min(1 << 16, limit_bytes - len(data) + 1)):
            data += more
            if len(data) > limit_bytes:
                raise OSError(errno.EFBIG, f"it has more than {limit_bytes} bytes, which is the most that is wanted")
        return data
