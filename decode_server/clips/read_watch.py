"""What goes on with a worker's storage: the reads that have not returned, and the faults of each thread's task.

It knows no files and reads nothing; time is its caller's. A read belongs to the thread that makes it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FAULTS = (
    "io",  # EIO and what else a device says of itself
    "stale",  # ESTALE: the file behind an open handle is gone, on NFS mostly replaced
    "timeout",  # a soft mount gave up
    "denied",  # no permission, which a server's credentials may have lost
    "unmounted",  # the mount that the root lay on is gone, or what served it
    "short",  # a read ended early although the file goes on
    "shrunk",  # a file ends before its index does: a stale view of it, unless it stands when opened anew
    "misread",  # bytes differed from the index, and from themselves or no longer when read again
    "altered",  # bytes differ from the index whenever they are read: the media, not the storage
    "slow",  # a read took long
    "hung",  # a read did not return in time, and may never
    "other",
)
RETRY = "retry"  # counted beside them: a read that was made again
OPERATIONS = ("open", "read")  # of storage, whose times are kept
_TIMES = 256  # of a thread that nobody takes
SLOW_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A read that has not returned: by which thread, of what, begun when on the watch's clock."""

    thread: int
    path: str
    began_s: float


@dataclass(frozen=True, slots=True)
class Met:
    """What a thread's reads met: counts by fault, operations and their seconds, and how many packet indices were in
    memory and how many were not.
    """

    faults: Counter[str]
    times: tuple[tuple[str, float], ...]
    lookups: tuple[int, int]

    def __add__(self, other: Met) -> Met:
        lookups = self.lookups[0] + other.lookups[0], self.lookups[1] + other.lookups[1]
        return Met(self.faults + other.faults, self.times + other.times, lookups)


class ReadWatch:
    """The reads and faults of one process. Thread-safe; no method blocks on storage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._reading: dict[int, Overdue] = {}
        self._faults: dict[int, Counter[str]] = {}
        self._reported: set[Overdue] = set()
        self._took_s: dict[int, deque[tuple[str, float]]] = {}
        self._lookups: Counter[tuple[int, bool]] = Counter()

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Around everything of a read that can block: the look-up, the open, the read and the close."""
        read = Overdue(thread=threading.get_ident(), path=path, began_s=self._clock())
        with self._lock:
            self._reading[read.thread] = read
        try:
            yield
        finally:
            with self._lock:
                del self._reading[read.thread]
                self._reported.discard(read)
            if self._clock() - read.began_s >= SLOW_S:
                self.count("slow")

    def count(self, fault: str) -> None:
        """A read of the calling thread met one of FAULTS, or is a RETRY."""
        assert fault in FAULTS or fault == RETRY, fault
        with self._lock:
            self._faults.setdefault(threading.get_ident(), Counter())[fault] += 1

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Around one of OPERATIONS of the calling thread, if it succeeds."""
        began_s = self._clock()
        yield
        with self._lock:
            took_s = self._took_s.setdefault(threading.get_ident(), deque(maxlen=_TIMES))
            took_s.append((operation, self._clock() - began_s))

    def take_times(self) -> list[tuple[str, float]]:
        """The calling thread's operations since its last call, and how many seconds each took."""
        with self._lock:
            return list(self._took_s.pop(threading.get_ident(), ()))

    def looked_up(self, *, in_memory: bool) -> None:
        """The calling thread needed a packet index, and found it among those kept in memory, or on storage."""
        with self._lock:
            self._lookups[threading.get_ident(), in_memory] += 1

    def take_lookups(self) -> tuple[int, int]:
        """How often the calling thread found an index in memory, and not, since its last call."""
        thread = threading.get_ident()
        with self._lock:
            return self._lookups.pop((thread, True), 0), self._lookups.pop((thread, False), 0)

    def take(self) -> dict[str, int]:
        """The calling thread's counts since its last take."""
        with self._lock:
            return dict(self._faults.pop(threading.get_ident(), {}))

    def take_all(self) -> Met:
        """All that the calling thread's reads met since its last take."""
        return Met(Counter(self.take()), tuple(self.take_times()), self.take_lookups())

    def overdue(self, *, longer_than_s: float) -> list[Overdue]:
        """The reads that have lasted so long; each is reported once."""
        now_s = self._clock()
        with self._lock:
            found = [
                read
                for read in self._reading.values()
                if now_s - read.began_s >= longer_than_s and read not in self._reported
            ]
            self._reported.update(found)
        return found

    def __repr__(self) -> str:
        return f"ReadWatch({len(self._reading)} reads under way, {len(self._reported)} overdue)"
