"""The feed: the thread that moves messages between the wire, the dispatch and the prefetcher, and who waits for it.

All decisions are theirs; this file knows the clock, the lock and the liveness of the thread. The consumer only waits
for a bell, at most a tick at a time; whatever kills the thread is raised at the consumer within one tick.

An exception that a signal's handler raises in the consumer, at any moment, changes nothing: what it takes is noted by
one assignment, what follows from that is done by whoever has the lock next, and to the same end however often it is
begun, and the same batch is given again until the loader says that it was given.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadRequest, FramefeedError, WrongVersion
from framefeed.wire import ClipReply, Reply, pack_call, peek_attempt, unpack_reply
from trainer_client.feed.batch import Batch
from trainer_client.feed.own_lock import let_go_of
from trainer_client.feed.pauses import Pauses
from trainer_client.feed.prefetch import BatchPlan, Delivery, Prefetch
from trainer_client.feed.stand_ins import StandIns
from trainer_client.feed.stop_switch import StopSwitch
from trainer_client.fleet.discovery import Discovery, Members, Source
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.messages import Failed, Got, Send
from trainer_client.fleet.protection import Protection
from trainer_client.fleet.watchdog import Stalled
from trainer_client.measures.stats import FeedState, FeedStats, Ledger, snapshot
from trainer_client.measures.wait import ClipLife, Wait, WaitLedger, to_ns
from trainer_client.transports.transport import Kind, Signal

_log = logging.getLogger(__name__)

TICK_S = 0.1
_JOIN_S = 5.0
_NOTICE_S = 10.0
_TURN_MAX_S = 5.0  # a turn may take so long on a busy machine, however soon a standstill is to be told
_BURST_MESSAGES = 32  # of one server, before the others and the clock have their turn
_CATCH_UP_TURNS, _CATCH_UP_S = 64, 0.02  # after a pause: turns that only listen, until nothing came for so long


class Wire(Protocol):
    """What the feed needs of its connections; every call is made by the feed's thread."""

    def connect(self, url: str) -> None: ...

    def disconnect(self, url: str) -> None: ...

    def trouble(self, url: str) -> str: ...

    def send(self, url: str, header: bytes) -> bool: ...

    def wait(self, timeout_s: float) -> list[Signal]: ...

    def header(self, url: str) -> bytes | None: ...

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int: ...


OpenWire = Callable[[socket.socket], AbstractContextManager[Wire]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a feed is made of: where its servers come from and how often to look, the decisions, where they are counted,
    how long its thread may be silent, and which servers may be used.
    """

    sources: Sequence[Source]
    look_every_s: float
    fleet: Fleet
    dispatch: Dispatch
    prefetch: Prefetch
    stand_ins: StandIns
    ledger: Ledger
    rank: int
    stall_s: float
    protection: Protection


@dataclass(slots=True, kw_only=True, eq=False)
class Handed:
    """A batch that is taken for a place in the run's order, and what the consumer's counts are with it."""

    place: int
    number: int
    batch: Batch
    batches: int
    used: int
    stood_in: int
    waits: WaitLedger
    counted: bool = False


class Feed:
    """One running plan. Whoever builds it closes it; one thread calls start() and next_batch()."""

    def __init__(self, plan: Iterator[BatchPlan], parts: Parts, *, open_wire: OpenWire) -> None:
        self._plan = plan
        self._parts = parts
        self._dispatch, self._prefetch, self._ledger = parts.dispatch, parts.prefetch, parts.ledger
        self._open_wire = open_wire
        self._lock = threading.RLock()
        self._bell = queue.SimpleQueue[None]()  # rung when who waits should look again; may ring for nothing
        self.handed: Handed | None = None
        """What next_batch() returned last, until its caller has given it and sets this to None."""
        self._plan_over = False
        self._plan_error: FramefeedError | None = None  # of the first batch that could not be planned
        self._error: BaseException | None = None
        self._beat_s = time.monotonic()
        self._pauses = Pauses(self._beat_s)
        self._delivered = False
        self._discarded: int | None = None  # the ledger's count once what is open is thrown away
        self.stop_switch = StopSwitch()
        discovery = Discovery(
            parts.sources,
            every_s=parts.look_every_s,
            on_report=self.stop_switch.rouse,
            protection=parts.protection,
        )
        self._members = Members(discovery, fleet=parts.fleet, dispatch=parts.dispatch, ledger=parts.ledger)
        self._runs_in: dict[str, threading.Thread | None] = {}  # "thread": the first to set it; None once it shall not
        self._ended = False  # Thread.is_alive() says so of a thread that runs, after an interrupt within its join()

    def start(self) -> None:
        """Begin to prefetch, unless it has begun. Returns at once."""
        if not self._runs_in:
            threading.Thread(target=self._run, name=f"framefeed-feed-{self._parts.rank}", daemon=True).start()

    def next_batch(self, place: int) -> Batch | None:
        """The next batch, for a place in the run's order; None when the plan is over. Blocks while clips arrive
        somewhere. Asked again for the place of the one that is in `handed`, it returns that one.

        Raises the error of a clip that no server can give (at its batch, again at every call), Stalled when no clip
        came for `stall_s`, BadInput when no server fits the run or the batch has a sample that is no clip's (again at
        every call), RuntimeError when the thread died or after close().
        """
        self._unlock()
        began_s = time.monotonic()  # before the lock: waiting for it is waiting as well
        notice_s = _NOTICE_S
        with self._lock:
            if self._ledger.waits.since_s is None:
                self._ledger.waits.since_s = began_s
        try:
            while True:
                with self._lock:
                    if self._take(place):
                        break
                    self._check_alive()
                    notice_s = self._notice(began_s, notice_s)
                self._listen_for_bell()
        except BaseException:
            with self._lock:
                self._count_handed()
                self._end_wait(self._life_so_far(), self._prefetch.later_ready_s)
            raise
        self.stop_switch.rouse()
        return None if self.handed is None else self.handed.batch

    @property
    def has_batch(self) -> bool:
        """Whether next_batch() would not wait for clips: it has a batch, or an error, to give."""
        with self._lock:
            return self.handed is not None or self._prefetch.ready

    def count_copy_wait(self, waited_s: float) -> None:
        """Count seconds for which the consumer was blocked until a batch was on its device."""
        with self._lock:
            self._count_handed()
            waits = self._ledger.waits.copy()
            waits.copied(to_ns(waited_s))
            self._ledger.waits = waits

    def stats(self) -> FeedStats:
        """A snapshot of the counts. Blocks for the microseconds that the feed's thread holds its lock."""
        with self._lock:
            self._count_handed()
            fleet, dispatch, prefetch = self._parts.fleet, self._dispatch, self._prefetch
            is_waiting = self._ledger.waits.since_s is not None
            feed_state = FeedState(
                in_flight=dispatch.in_flight,
                held=prefetch.held,
                held_limit=prefetch.limit_clips,
                inflight_bytes=fleet.inflight_bytes,
                inflight_limit_bytes=dispatch.inflight_limit_bytes,
                window_clips=sum(fleet.servers[url].window_clips for url in fleet.up),
                deadline_s=dispatch.deadline_s,
                servers={url: server.state.value for url, server in fleet.servers.items()},
                metrics_pages={
                    url: server.metrics_page for url, server in fleet.servers.items() if server.metrics_page
                },
                identity=dispatch.identity,
                wait=self._wait(self._life_so_far(), prefetch.later_ready_s) if is_waiting else None,
            )
            return snapshot(self._ledger, feed_state, rank=self._parts.rank)

    @property
    def fingerprint(self) -> str:
        """The decoder of the run's servers; "" before that is decided."""
        return self._parts.fleet.identity.fingerprint

    @property
    def dataset(self) -> str:
        """The identity of the data set that the run's servers have; "" before that is decided."""
        return self._parts.fleet.identity.dataset

    def close(self) -> None:
        """Stop the thread and drop what is in flight. Idempotent; blocks for at most 5 s.

        Raises RuntimeError if the thread does not end in that time; it can then not be trusted with anything. The line
        says what went wrong in it before, if anything did.
        """
        self.stop_switch.throw()
        self._unlock()
        self._bell.put(None)
        self._members.close()
        if self._runs_in.setdefault("thread", None) is not None:
            self._join()
        self.stop_switch.close()
        with self._lock:
            self._count_handed()
            self._end_wait(None, None)
            self._discard()

    # The consumer's side.

    def _join(self) -> None:
        """Wait until the thread has ended. Raises RuntimeError if it does not."""
        until_s = time.monotonic() + _JOIN_S
        while not self._ended:
            if time.monotonic() > until_s:
                before = self._error or self._plan_error
                why = f"; before that: {_in_words(before)}" if before is not None else ""
                raise RuntimeError(f"the feed's thread did not end within {_JOIN_S:g} s of close(){why}") from before
            self._listen_for_bell()
        thread = self._runs_in["thread"]
        assert thread is not None
        thread.join(_JOIN_S)  # it has nothing left to do

    def _unlock(self) -> None:
        """See let_go_of: nobody calls what calls this with the lock."""
        let_go_of(self._lock)
        self.stop_switch.unlock()

    def _listen_for_bell(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=TICK_S)

    def _take(self, place: int) -> bool:
        """Have the batch for a place in `handed`, or None there if the plan is over. Returns whether it is so."""
        if self.handed is None or self.handed.place != place:
            delivery = self._prefetch.peek()
            if delivery is not None:
                self.handed = self._handing(place, delivery)
            elif self._plan_over and self._prefetch.empty:
                self._check_plan()
                self.handed = None
            else:
                return False
        self._count_handed()
        self._end_wait(None, None)  # of one that was taken before, and not given
        return True

    def _handing(self, place: int, delivery: Delivery) -> Handed:
        waits = self._ledger.waits.copy()
        waits.add(self._wait(delivery.last, delivery.later_ready_s))
        return Handed(
            place=place,
            number=delivery.number,
            batch=delivery.batch,
            batches=self._ledger.batches + 1,
            used=self._ledger.used + len(delivery.batch),
            stood_in=self._ledger.stood_in + len(delivery.batch.stand_ins),
            waits=waits,
        )

    def _count_handed(self) -> None:
        """Do what follows from a batch's being taken, if it is not done yet."""
        handed, ledger = self.handed, self._ledger
        if handed is None or handed.counted:
            return
        self._prefetch.release(handed.number)
        ledger.batches, ledger.used, ledger.stood_in = handed.batches, handed.used, handed.stood_in
        ledger.waits = handed.waits
        self._delivered = True
        handed.counted = True

    def _discard(self) -> None:
        """Throw away what was not taken. Idempotent."""
        if not self._prefetch.empty:
            if self._discarded is None:
                self._discarded = self._ledger.discarded + self._prefetch.held
            self._ledger.discarded = self._discarded
            self._prefetch.discard()

    def _check_plan(self) -> None:
        """Raise what kept the next batch from being planned."""
        if self._plan_error is not None:
            raise _again(self._plan_error)

    def _check_alive(self) -> None:
        if self.stop_switch.thrown:
            raise RuntimeError("the loader is closed")
        if isinstance(self._error, FramefeedError):
            raise self._error
        if self._error is not None or self._ended:
            why = "" if self._error is None else f": {_in_words(self._error)}"
            raise RuntimeError(f"the feed's thread died{why}") from self._error
        silent_s = time.monotonic() - self._beat_s
        if silent_s > max(self._parts.stall_s, _TURN_MAX_S):
            raise Stalled(f"the feed's thread has not turned for {silent_s:.0f} s")

    def _end_wait(self, last: ClipLife | None, later_ready_s: float | None) -> None:
        """Count the wait that is over, if there is one."""
        waits = self._ledger.waits.copy()
        if waits.since_s is not None:
            waits.add(self._wait(last, later_ready_s))
            self._ledger.waits = waits

    def _wait(self, life: ClipLife | None, later_ready_s: float | None) -> Wait:
        since_s = self._ledger.waits.since_s
        assert since_s is not None
        return Wait(
            began_ns=to_ns(since_s),
            ended_ns=to_ns(time.monotonic()),
            life=life,
            later_ready_ns=None if later_ready_s is None else to_ns(later_ready_s),
            first_batch=not self._delivered,
        )

    def _life_so_far(self) -> ClipLife | None:
        """Of the clips that the consumer waits for; None while they are not planned."""
        now_s = time.monotonic()
        life = self._prefetch.ready_last or self._dispatch.holds.life_so_far(self._prefetch.missing, now_s)
        if life is None and not self._prefetch.empty:  # they have failed
            life = ClipLife(wanted_s=0.0, received_s=now_s, parts=(("no_server", now_s),))
        return life

    def _notice(self, began_s: float, due_s: float) -> float:
        """Say in the log who waits for what, at a wait of 10 s, 20 s, 40 s… Returns when it is due next."""
        now_s = time.monotonic()
        if now_s - began_s < due_s:
            return due_s
        situation = f"{self._dispatch.situation(now_s)}; servers come from {self._members}"
        _log.warning("waited %.0f s for a batch: %s", now_s - began_s, situation)
        return 2 * due_s

    # The thread's side.

    def _run(self) -> None:
        this = threading.current_thread()
        if self._runs_in.setdefault("thread", this) is not this:
            return  # an interrupted start() was made again, or close() came first
        try:
            with self._open_wire(self.stop_switch.wake) as wire:
                self._members.start()
                self._pauses = Pauses(time.monotonic())
                while not self.stop_switch.thrown:
                    self._turn(wire)
        except BaseException as error:
            self._error = error
        finally:
            self._end()

    def _end(self) -> None:
        """The counts of what was under way are this thread's to make whole: no signal's handler interrupts it."""
        try:
            self._ring()
            self.stop_switch.close()
            self._members.close()
            with self._lock:
                self._count_handed()
                self._dispatch.close()
                if self.stop_switch.thrown:
                    self._discard()
        finally:
            self._ended = True
            self._bell.put(None)

    def _ring(self) -> None:
        """Have the consumer look again."""
        if self._bell.empty():
            self._bell.put(None)

    def _turn(self, wire: Wire) -> None:
        cpu_s = time.thread_time()
        self._plan_ahead()
        self._members.tend(wire, lock=self._lock, now_s=time.monotonic())
        silence_s = self._listen_after_pause(wire)
        now_s = self._beat_s = time.monotonic()
        with self._lock:
            try:
                sends = self._dispatch.tick(now_s, own_silence_s=silence_s)
            except Stalled as stalled:
                raise Stalled(f"{stalled}; servers come from {self._members}") from None
            for line in self._parts.fleet.tidings():
                _log.warning("%s", line)
            self._settle()
            wake_s = self._dispatch.wake_s(now_s)
            busy = self._prefetch.has_room and not self._plan_over
            is_shallow = not (self._prefetch.has_room or self._plan_over) and self._dispatch.holds.has_spare
            self._dispatch.lives.shallow(is_shallow, now_s)
        for send in sends:
            self._send(wire, send)
            self._pauses.step(time.monotonic())
        timeout_s = TICK_S if wake_s is None else min(max(wake_s - time.monotonic(), 0.0), TICK_S)
        self._listen(wire, 0.0 if busy else timeout_s)
        with self._lock:
            self._ledger.receive_cpu_s += time.thread_time() - cpu_s

    def _listen(self, wire: Wire, timeout_s: float) -> bool:
        """Wait for what servers say and take it in. Returns whether there was anything."""
        signals = wire.wait(timeout_s)
        self._beat_s = time.monotonic()
        self._pauses.step(self._beat_s, wait_s=timeout_s)
        for signal in signals:
            self._hear(wire, signal)
        return bool(signals)

    def _listen_after_pause(self, wire: Wire) -> float:
        """Seconds in which this thread, kept from its work by whatever it was, listened to nobody.

        What arrived meanwhile is taken in before anybody is judged by it.
        """
        self._pauses.step(time.monotonic())
        silence_s = self._pauses.take_s()
        if silence_s > 0:
            for _ in range(_CATCH_UP_TURNS):
                if not self._listen(wire, _CATCH_UP_S):
                    break
        return silence_s

    def _plan_ahead(self) -> None:
        """Open one batch if there is room; planning itself is done outside the lock."""
        with self._lock:
            if self._plan_over or not self._prefetch.has_room:
                return
            self._dispatch.lives.planning(True, time.monotonic())
        try:
            plan = next(self._plan, None)
        except FramefeedError as error:
            plan, self._plan_error = None, error
        with self._lock:
            self._dispatch.lives.planning(False, time.monotonic())
            if plan is None:
                self._plan_over = True
                self._ring()
                return
            now_s = time.monotonic()
            for ticket, request in zip(self._prefetch.open(plan), plan.requests, strict=True):
                self._dispatch.want(ticket, request, now_s=now_s)

    def _send(self, wire: Wire, send: Send) -> None:
        if not wire.send(send.url, pack_call(send.call)):
            with self._lock:
                self._dispatch.unsent(send, now_s=time.monotonic())

    def _hear(self, wire: Wire, signal: Signal) -> None:
        if signal.kind is Kind.MESSAGES:
            for _ in range(_BURST_MESSAGES):
                header = wire.header(signal.url)
                if header is None:
                    return
                self._receive(wire, signal.url, header)
                self._pauses.step(time.monotonic())
            return
        with self._lock:
            happened = self._dispatch.connected if signal.kind is Kind.CONNECTED else self._dispatch.disconnected
            happened(signal.url, now_s=time.monotonic())
            self._settle()

    def _receive(self, wire: Wire, url: str, header: bytes) -> None:
        """Take a message in. Whatever it comes to costs its server the connection and not the run its feed."""
        with contextlib.ExitStack() as locked:
            try:
                self._take_in(wire, url, header, locked=locked)
            except Exception:
                _log.exception("a reply of %s failed in a way that is a bug; its connection is made anew", url)
                locked.enter_context(self._lock)
                self._ledger.dropped_replies["internal"] += 1
                self._dispatch.disconnected(url, now_s=time.monotonic())
                wire.disconnect(url)
                wire.connect(url)
            self._settle()  # what ends a run on purpose is raised by this

    def _take_in(self, wire: Wire, url: str, header: bytes, *, locked: contextlib.ExitStack) -> None:
        """It takes the lock for as long as `locked` lasts: a clip that is here is held before anybody counts."""
        reply: Reply | WrongVersion | str
        try:
            reply = unpack_reply(header)
        except WrongVersion as error:
            reply = error
        except BadRequest as error:
            reply = str(error)
        except Exception as error:  # whatever reading what others wrote comes to is their mistake
            _log.debug("a reply of %s does not read", url, exc_info=error)
            reply = f"it does not read ({type(error).__name__})"
        into = None
        if isinstance(reply, ClipReply):
            with self._lock:
                ticket = self._dispatch.expects(url, reply.attempt)
                into = None if ticket is None else self._prefetch.row(ticket)
        pixel_bytes = wire.pixels(url, into)
        locked.enter_context(self._lock)
        now_s = time.monotonic()
        if isinstance(reply, str):
            self._dispatch.malformed(url, peek_attempt(header), now_s=now_s, why=reply)
        elif isinstance(reply, WrongVersion):
            self._dispatch.foreign(url, str(reply), now_s=now_s)
        else:
            self._dispatch.replied(url, reply, pixel_bytes=pixel_bytes, now_s=now_s)

    def _refill(self, end: Failed) -> None:
        """Another sample stands in for one that no server can give, or its batch fails."""
        request = self._prefetch.stand_in(end.ticket, self._parts.stand_ins.after, end.error)
        if request is not None:
            self._dispatch.want(end.ticket, request, now_s=time.monotonic())

    def _settle(self) -> None:
        """Hand what became of clips to the prefetcher, and wake the consumer when its batch is ready."""
        finished = self._dispatch.finished()
        for end in finished:
            if isinstance(end, Got):
                self._prefetch.fill(end.ticket, end.reply.info, end.life)
            else:
                self._refill(end)
        if finished and self._prefetch.ready:
            self._ring()


def _again(error: FramefeedError) -> FramefeedError:
    """The error to raise, now and at every call: its own would come to hold the frames of whoever called."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    return fresh


def _in_words(error: BaseException) -> str:
    """An error's kind and text, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
