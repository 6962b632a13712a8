"""The standard streams of a process: all three are there, and one that nobody reads keeps nobody waiting.

A closed stream's number would go to the next file or socket that is opened, and children take what has it for theirs. A
pipe whose reader stands takes 64 KiB, and then blocks whoever writes. It knows not what the lines mean.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import io
import os
import select
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from framefeed.cli.at_once import STDERR, takes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN, STDOUT = range(2)
_WAIT_S = 0.05  # for a reader that is slow; one that stands costs it once
_BROKEN_PIPE = 141  # what a shell says of a command whose reader has gone


def open_standard_streams() -> None:
    """Open those of 0, 1 and 2 that are closed, to /dev/null. Call it first: what is opened before is one of them."""
    for fd, mode in ((STDIN, "r"), (STDOUT, "w"), (STDERR, "w")):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd, inheritable=True)
            if null != fd:
                os.close(null)
        name = ("stdin", "stdout", "stderr")[fd]
        if getattr(sys, name) is None:
            stream = open(fd, mode, closefd=False, encoding="utf-8")  # noqa: SIM115  # it is the process's
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


class _Stdout(io.FileIO):
    """Keeps why it could not be written: an OSError by itself does not tell of which file it is."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """As FileIO does."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def watch_stdout() -> None:
    """Have `flush_stdout` know what became of everything that is printed from here on."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        before = cast(io.TextIOWrapper, sys.stdout)
        raw = _Stdout(STDOUT, "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            cast(BinaryIO, raw) if before.write_through else io.BufferedWriter(raw),  # as PYTHONUNBUFFERED has it
            encoding=before.encoding,
            errors="backslashreplace" if before.errors == "strict" else before.errors,  # an encoding may lack a sign
            line_buffering=before.line_buffering,
            write_through=before.write_through,
        )


def _raw_stdout() -> object:
    buffer = getattr(sys.stdout, "buffer", None)
    return getattr(buffer, "raw", buffer)


def flush_stdout() -> int:
    """Write out what was printed. Returns an exit code, and says in a line why stdout cannot be written if it is 1."""
    failure: OSError | None = None
    try:
        sys.stdout.flush()
    except OSError as error:
        failure = error
    raw = _raw_stdout()
    if isinstance(raw, _Stdout):
        failure = failure or raw.failure
    if failure is None:
        return 0
    null = os.open(os.devnull, os.O_WRONLY)  # where what is left in the buffer goes
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    if isinstance(failure, BrokenPipeError):  # whoever read what was printed has read enough
        return _BROKEN_PIPE
    print(f"framefeed: stdout cannot be written ({failure.strerror})", file=sys.stderr)
    return 1


def bound_stderr() -> None:
    """From here on, what Python writes to stderr takes 50 ms at most. What stderr does not take is dropped, and the
    lines are counted and said once it takes some again. A no-op where something else stands for stderr already.
    """
    if sys.stderr is sys.__stderr__ and sys.stderr is not None:
        log = _LogWriter(STDERR)
        sys.stderr = _text(log, sys.stderr.encoding)
        atexit.register(log.say_lost)


def bound_stdout() -> None:
    """From here on, printing takes 50 ms at most, and raises OSError, with nothing left to be written, where stdout
    does not take it: BlockingIOError if its reader stands. A no-op where something else stands for stdout.
    """
    if isinstance(_raw_stdout(), _Stdout) or (sys.stdout is sys.__stdout__ and sys.stdout is not None):
        sys.stdout.flush()
        do_not_block(STDOUT)
        sys.stdout = _text(_BoundedWriter(STDOUT), sys.stdout.encoding)


def log_to_stdout() -> None:
    """From here on, printing takes 50 ms at most and never fails: what stdout does not take is dropped. stderr says so
    at the first such line, and stdout how many lines it were once it takes some again. A no-op where something else
    stands for stdout.
    """
    if isinstance(_raw_stdout(), _Stdout) or (sys.stdout is sys.__stdout__ and sys.stdout is not None):
        sys.stdout.flush()
        do_not_block(STDOUT)
        log = _LogWriter(STDOUT)
        sys.stdout = _text(log, sys.stdout.encoding)
        atexit.register(log.say_lost)


def do_not_block(fd: int) -> None:
    """Have the kernel refuse what would block, as far as it can be had: for what libraries write by themselves, too.

    Children inherit it. A pipe or terminal is opened anew: the flag is of the open file, which is shared with whoever
    started this process and with whoever else writes there.
    """
    with contextlib.suppress(OSError):  # another user's terminal, or a pipe without a reader: as it is, then
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
            own = os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            os.dup2(own, fd, inheritable=True)
            os.close(own)


def _text(raw: _BoundedWriter, encoding: str) -> TextIO:
    """Lines are written one by one, and at once: a buffer between would have to be written at the end."""
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True)  # type: ignore[type-var]


class _BoundedWriter(io.RawIOBase):
    """Writes all it is given within _WAIT_S, or raises OSError."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lock = threading.RLock()  # a handler of a signal may write within a write
        self._patient = True  # the last write was taken
        self._torn = False  # only a part of a line was

    def write(self, data: ReadableBuffer) -> int:
        """How many bytes: all."""
        view = memoryview(data).cast("B")
        with self._lock:
            until_s = time.monotonic() + (_WAIT_S if self._patient else 0.0)
            self._patient = False
            if self._torn:
                self._write_part(memoryview(b"\n"), until_s)
            done = 0
            while done < len(view):
                self._torn = done > 0
                done += self._write_part(view[done : done + select.PIPE_BUF], until_s)
            self._patient, self._torn = True, False
        return len(view)

    def _write_part(self, part: memoryview, until_s: float) -> int:
        """At most PIPE_BUF bytes, which a pipe that is ready takes without blocking."""
        while takes(self._fd, max(until_s - time.monotonic(), 0.0)):
            with contextlib.suppress(BlockingIOError):  # another process was quicker
                return os.write(self._fd, part)
            if time.monotonic() >= until_s:
                break
        raise BlockingIOError(errno.EAGAIN, "its reader stands")

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """It is for nothing else."""
        return True


class _LogWriter(_BoundedWriter):
    """Drops what is not taken, and says how many lines that was as soon as it can."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._lost_lines = 0

    def write(self, data: ReadableBuffer) -> int:
        """How many bytes: all, written or dropped."""
        view = memoryview(data).cast("B")
        with self._lock:
            try:
                if self._lost_lines:
                    super().write(self._lost())
                    self._lost_lines = 0
                super().write(view)
            except OSError:
                if self._fd != STDERR and not self._lost_lines:
                    print("framefeed: stdout is not read: lines are left out until it is", file=sys.stderr)
                self._lost_lines += max(view.tobytes().count(b"\n"), 1)
        return len(view)

    def _lost(self) -> bytes:
        stream = "stderr" if self._fd == STDERR else "stdout"
        lost = f"{self._lost_lines} lines of log were lost: {stream} did not take them"
        return f"framefeed[{os.getpid()}]: {lost}\n".encode()

    def say_lost(self) -> None:
        """At the end of the process; what stdout does not take even then, stderr does."""
        if not self._lost_lines:
            return
        with self._lock:
            self._patient = True
            try:
                super().write(self._lost())
                self._lost_lines = 0
            except OSError:
                if self._fd != STDERR:
                    sys.stderr.write(self._lost().decode())
