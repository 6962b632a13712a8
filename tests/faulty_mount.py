"""A real file system that fails when told to: a folder seen through FUSE, by the kernel's own protocol.

Reads bypass the page cache, and one that hangs is in uninterruptible sleep, as on a hard NFS mount: its process cannot
be killed until the read is let go. Needs root and /dev/fuse, and nothing installed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

HANG = -1
_IN, _OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_INIT = struct.Struct("<IIIIHHIIHHI7I")
_DIRECT_IO = 1


class _Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42


_UNANSWERED = (_Op.FORGET, _Op.INTERRUPT, _Op.BATCH_FORGET)


def possible() -> bool:
    """Whether such a mount can be made here."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


class FaultyMount:
    """The file system. Each entry of `faults` is what happens to the next read of a file whose name ends in `suffix`:
    an errno, or HANG until `let_go`.
    """

    def __init__(self, source: Path, *, suffix: str) -> None:
        self.faults: deque[int] = deque()
        self.hanging = 0
        self._changed = threading.Condition()
        self._held: list[tuple[int, Path, int, int]] = []
        self._suffix = suffix
        self._nodes: dict[int, Path] = {1: source}
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="fuse", daemon=True)

    @contextmanager
    def at(self, folder: Path) -> Iterator[FaultyMount]:
        """Mounted at a folder."""
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        command = ["mount", "-i", "-t", "fuse", "-o", options, "faulty", str(folder)]
        subprocess.run(command, pass_fds=[self._device], check=True)
        self._thread.start()
        try:
            yield self
        finally:
            self.let_go()
            subprocess.run(["umount", "-l", str(folder)], check=False, stderr=subprocess.DEVNULL)
            self._thread.join(20)
            os.close(self._device)

    def wait_for_hanging(self, reads: int) -> None:
        """Wait until so many reads hang."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.hanging >= reads, 30), self.hanging

    def die(self, folder: Path) -> None:
        """End as a file system process does: the mount stays, and whatever is asked of it fails."""
        subprocess.run(["umount", "-f", str(folder)], check=False, stderr=subprocess.DEVNULL)

    def let_go(self) -> None:
        """Answer every read that hangs."""
        with self._changed:
            self.faults.clear()
            held, self._held, self.hanging = self._held, [], 0
        for unique, path, offset, size in held:
            self._answer(unique, _bytes(path, offset, size))

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self._device, 1 << 20)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return  # unmounted
            _, opcode, unique, node, *_ = _IN.unpack_from(message)
            if opcode in _UNANSWERED:
                continue
            try:
                answer = self._call(opcode, unique, node, message[_IN.size :])
            except OSError as error:
                self._answer(unique, b"", error.errno or errno.EIO)
            else:
                if answer is not None:
                    self._answer(unique, answer)

    def _answer(self, unique: int, body: bytes, error: int = 0) -> None:
        try:
            os.write(self._device, _OUT.pack(_OUT.size + len(body), -error, unique) + body)
        except OSError as gone:
            if gone.errno not in (errno.ENOENT, errno.ENODEV):  # who asked was killed, or all is over
                raise

    def _call(self, opcode: int, unique: int, node: int, body: bytes) -> bytes | None:
        answer: bytes | None = b""  # flushing and letting go need no more
        match opcode:
            case _Op.INIT:
                answer = _INIT.pack(7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1, 32, 0, 0, *(0,) * 7)
            case _Op.LOOKUP:
                path = self._nodes[node] / os.fsdecode(body.rstrip(b"\0"))
                number = path.stat().st_ino
                self._nodes[number] = path
                answer = struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + _attributes(path)
            case _Op.GETATTR:
                answer = struct.pack("<QII", 0, 0, 0) + _attributes(self._nodes[node])
            case _Op.OPEN | _Op.OPENDIR:
                answer = struct.pack("<QII", 0, _DIRECT_IO if opcode == _Op.OPEN else 0, 0)
            case _Op.READ:
                _, offset, size, *_ = struct.unpack_from("<QQII", body)
                answer = self._read(unique, self._nodes[node], offset, size)
            case _Op.READDIR:
                _, offset, *_ = struct.unpack_from("<QQII", body)
                answer = _entries(self._nodes[node]) if offset == 0 else b""
            case _Op.STATFS:
                answer = struct.pack("<5Q4I6I", *(0,) * 15)
            case _Op.RELEASE | _Op.FLUSH | _Op.RELEASEDIR:
                pass
            case _:
                raise OSError(errno.ENOSYS, "")
        return answer

    def _read(self, unique: int, path: Path, offset: int, size: int) -> bytes | None:
        with self._changed:
            if not path.name.endswith(self._suffix) or not self.faults:
                return _bytes(path, offset, size)
            fault = self.faults.popleft()
            if fault == HANG:
                self._held.append((unique, path, offset, size))
                self.hanging += 1
                self._changed.notify_all()
                return None
        raise OSError(fault, "")


def _bytes(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), size, offset)


def _attributes(path: Path) -> bytes:
    s = path.stat()
    times = int(s.st_atime), int(s.st_mtime), int(s.st_ctime)
    nanoseconds = (s.st_atime_ns % 10**9, s.st_mtime_ns % 10**9, s.st_ctime_ns % 10**9)
    number = 1 if stat.S_ISDIR(s.st_mode) else s.st_ino
    return _ATTR.pack(
        number, s.st_size, s.st_blocks, *times, *nanoseconds, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, 0, 4096, 0
    )


def _entries(folder: Path) -> bytes:
    listed = b""
    for at, entry in enumerate(sorted(os.scandir(folder), key=lambda entry: entry.name), start=1):
        name = os.fsencode(entry.name)
        listed += struct.pack("<QQII", entry.inode(), at, len(name), 0) + name + b"\0" * (-len(name) % 8)
    return listed
