"""A box of several fronts, each a process: started, started again when one died, and asked to end; none is left behind.

It decides who runs, and knows neither clients nor workers: a front is a whole server. A wait is half a second at most.
"""

from __future__ import annotations

import contextlib
import logging
import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from decode_server.service.box_front import BoxFront, BoxManifest
from decode_server.service.box_messages import FrontSetup
from decode_server.service.membership.registry import Registration
from decode_server.service.process_end import describe_end
from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput, FramefeedError
from framefeed.grace import END_S
from framefeed.server_entry import ServerEntry

log = logging.getLogger("framefeed.serve")

_TURN_S = 0.5
_FORCED_S = 5.0  # after a second signal, or when the box ends over an error
_LEAST_HANG_S = 5.0
_FIRST_TRIES, _LATER_TRIES = 3, 8  # failed starts in a row: of one front that was never ready, of each front


@dataclass(frozen=True, slots=True)
class BoxEntries:
    """The entries of a box's fronts, one a line."""

    entries: tuple[ServerEntry, ...]

    def pack(self) -> str:
        """The text of the file."""
        return "".join(entry.pack() for entry in self.entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxLimits:
    """How long a drain may take, how long a front's loop may stand, and how long what names the fronts is good for."""

    drain_s: float
    hang_s: float
    lease_s: float


class Box:
    """`run` returns when all fronts have drained after a stop signal."""

    def __init__(self, setups: Sequence[FrontSetup], *, announce: Path | None, limits: BoxLimits) -> None:
        """`announce` names all fronts once each was ready, written anew as an entry of a lease is.

        Raises BadInput if it cannot be written.
        """
        self._fronts = [BoxFront(number, setup) for number, setup in enumerate(setups)]
        self._limits = limits
        self._manifest = BoxManifest()
        self._waited_s = time.monotonic()
        self._registration: Registration | None = None
        if announce is not None:
            self._registration = Registration(announce, self._entries, sweep=False, lease_s=limits.lease_s)
        self._announced = False
        self._stops_told = 0
        self._end_by_s = 0.0
        self._unclean: list[str] = []

    def run(self) -> None:
        """Serve until a stop signal. Raises BadInput for what a front's user has to change, FramefeedError if a front
        cannot be started, or did not end in good order.
        """
        with StopSignals() as stops, contextlib.closing(self):
            while not stops.count or any(front.alive for front in self._fronts):
                self._wait(stops)
                now_s = time.monotonic()
                self._pass_on(stops, now_s)
                for front in self._fronts:
                    front.hear()
                    code = front.reap()
                    if code is not None:
                        self._ended(front, code, now_s, stopping=stops.count > 0)
                if not stops.count:
                    self._start_missing(now_s)
                self._kill_hung(now_s)
                self._tell()
        if self._unclean:
            raise FramefeedError("; ".join(self._unclean))

    def close(self) -> None:
        """End what still runs: in good order for 5 s, then at once. Idempotent."""
        if self._registration is not None:
            self._registration.end()
        for front in self._fronts:
            front.ask_to_end()
        until_s = time.monotonic() + _FORCED_S
        for patience in (until_s, until_s + _FORCED_S):
            while any(front.alive for front in self._fronts) and time.monotonic() < patience:
                select.select([fd for front in self._fronts for fd in front.fds()], [], [], _TURN_S / 10)
                for front in self._fronts:
                    front.hear()
                    front.reap()
            for front in self._fronts:
                front.kill()
        if self._registration is not None:
            self._registration.close()
        self._manifest.close()

    def _wait(self, stops: StopSignals) -> None:
        now_s = time.monotonic()
        missing = [front.start_at_s for front in self._fronts if not front.alive and not stops.count]
        wait_s = max(min([now_s + _TURN_S, *missing]) - now_s, 0.0)
        poll = select.poll()
        for fd in [stops.fileno(), *(fd for front in self._fronts for fd in front.fds())]:
            poll.register(fd, select.POLLIN)
        poll.poll(wait_s * 1000)
        stops.clear()

    def _pass_on(self, stops: StopSignals, now_s: float) -> None:
        """Pass each signal on to every front; kill those that take too long over it."""
        while self._stops_told < min(stops.count, 2):
            self._stops_told += 1
            self._end_by_s = now_s + (self._limits.drain_s + END_S if self._stops_told == 1 else _FORCED_S)
            log.info("%s: %d fronts are asked to end", stops.last, sum(front.alive for front in self._fronts))
            if self._registration is not None:
                self._registration.end()
            for front in self._fronts:
                front.ask_to_end()
        if self._stops_told and now_s >= self._end_by_s:
            for front in self._fronts:
                front.kill()

    def _start_missing(self, now_s: float) -> None:
        for front in self._fronts:
            if not front.alive and now_s >= front.start_at_s:
                try:
                    front.start(self._manifest)
                except OSError as error:
                    self._died(front, f"front {front.number} cannot be started ({error})", now_s, was_ready=False)

    def _kill_hung(self, now_s: float) -> None:
        """Kill fronts whose loop stands. What the box itself stood counts against none."""
        ran_s, self._waited_s = min(now_s - self._waited_s, 2 * _TURN_S), now_s
        for front in self._fronts:
            if front.alive and (stood_s := front.stood_s(ran_s)) > max(self._limits.hang_s, _LEAST_HANG_S):
                log.warning("front %d is killed: its loop has stood for %.1f s", front.number, stood_s)
                front.kill()

    def _tell(self) -> None:
        """Each front where the others are, once all are known; and the world, once all are ready."""
        if all(front.urls for front in self._fronts):
            for front in self._fronts:
                front.tell_siblings([other.urls for other in self._fronts if other is not front])
        if not self._announced and self._registration is not None and all(front.entry for front in self._fronts):
            self._announced = True
            self._registration.start()

    def _ended(self, front: BoxFront, code: int, now_s: float, *, stopping: bool) -> None:
        failure = front.failure
        how = failure.reason if failure else describe_end(code)
        if stopping:
            untouched = not front.took_requests and code == -signal.SIGTERM
            if code != 0 and not untouched:
                self._unclean.append(f"front {front.number}: {how}")
            return
        if failure and not front.was_ready:
            raise (BadInput if failure.bad_input else FramefeedError)(failure.reason)
        if failure and front.memory is self._manifest:  # it may be of a root that was indexed again since
            self._manifest.close()
            self._manifest = BoxManifest()
        self._died(front, f"front {front.number}: {how}", now_s, was_ready=front.took_requests)

    def _died(self, front: BoxFront, end: str, now_s: float, *, was_ready: bool) -> None:
        front.start_at_s = front.restarts.died(now_s=now_s, was_ready=was_ready)
        if not front.was_ready and front.restarts.failed_starts >= _FIRST_TRIES:
            raise FramefeedError(f"front {front.number} cannot be started, {_FIRST_TRIES} tries; the last: {end}")
        if all(one.restarts.failed_starts >= _LATER_TRIES for one in self._fronts):
            raise FramefeedError(f"no front can be started, {_LATER_TRIES} tries each; the last: {end}")
        log.warning("%s; it is started again in %.1f s", end, front.start_at_s - now_s)

    def _entries(self, beat: int) -> BoxEntries:
        ready = (front.entry for front in self._fronts)
        return BoxEntries(tuple(msgspec.structs.replace(entry, beat=beat) for entry in ready if entry is not None))

    def __repr__(self) -> str:
        return f"Box({sum(front.entry is not None for front in self._fronts)} of {len(self._fronts)} fronts ready)"
