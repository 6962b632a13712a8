"""The feed: the thread that moves messages between the wire, the dispatch and the prefetcher, and who waits for it.

All decisions are theirs; this file knows the clock, the lock and the liveness of the thread. The consumer only waits
for a bell, at most a tick at a time; whatever kills the thread is raised at the consumer within one tick.

An exception that a signal's handler raises in the consumer, at any moment, changes nothing: see handover.py. What is to
follow is done by whoever has the lock next, and the same batch is given again until the loader says that it was given.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from framefeed.errors import FramefeedError, WrongVersion
from framefeed.wire import ClipReply, pack_call, peek_attempt
from trainer_client.feed.batch import Batch
from trainer_client.feed.errors_again import again, in_words
from trainer_client.feed.handover import Handover
from trainer_client.feed.incoming import Incoming, read_reply
from trainer_client.feed.own_lock import let_go_of
from trainer_client.feed.parts import Parts
from trainer_client.feed.pauses import Pauses
from trainer_client.feed.prefetch import BatchPlan
from trainer_client.feed.standing import standing
from trainer_client.feed.stop_switch import StopSwitch
from trainer_client.feed.wire import OpenWire, Wire
from trainer_client.fleet.discovery import Discovery, Members
from trainer_client.fleet.messages import Failed, Got, Send
from trainer_client.fleet.watchdog import Stalled
from trainer_client.measures.stats import FeedStats, snapshot
from trainer_client.measures.wait import ClipLife
from trainer_client.transports.transport import Kind, Signal

_log = logging.getLogger(__name__)

TICK_S = 0.1
_JOIN_S = 5.0
_NOTICE_S = 10.0
_TURN_MAX_S = 5.0  # a turn may take so long on a busy machine, however soon a standstill is to be told
_GATHER_S = 0.05  # for which answers that nobody waits for are left to come together
_BURST_MESSAGES = 32  # of one server, before the others and the clock have their turn
_CATCH_UP_TURNS, _CATCH_UP_S = 64, 0.02  # after a pause: turns that only listen, until nothing came for so long


class Feed:
    """One running plan. Whoever builds it closes it; one thread calls start() and next_batch()."""

    def __init__(self, plan: Iterator[BatchPlan], parts: Parts, *, open_wire: OpenWire) -> None:
        self._plan = plan
        self._parts = parts
        self._dispatch, self._prefetch, self._ledger = parts.dispatch, parts.prefetch, parts.ledger
        self._open_wire = open_wire
        self._lock = threading.RLock()
        self._bell = queue.SimpleQueue[None]()  # rung when who waits should look again; may ring for nothing
        self.handover = Handover(parts.prefetch, parts.ledger)
        """Its `handed` is what next_batch() returned last, until its caller has given it and sets that to None."""
        self._plan_over = False
        self._plan_error: FramefeedError | None = None  # of the first batch that could not be planned
        self._error: BaseException | None = None
        self._beat_s = time.monotonic()
        self._pauses = Pauses(self._beat_s)
        self._lags = False  # whether more was said than was heard at once
        self._cpu_s = 0.0  # of the thread, as far as it is counted
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
            self.handover.begin_wait(began_s)
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
                self.handover.count()
                self.handover.end_wait(self._life_so_far(), self._prefetch.later_ready_s)
            raise
        self.stop_switch.rouse()
        handed = self.handover.handed
        return None if handed is None else handed.batch

    @property
    def has_batch(self) -> bool:
        """Whether next_batch() would not wait for clips: it has a batch, or an error, to give."""
        with self._lock:
            return self.handover.handed is not None or self._prefetch.ready

    def count_copy_wait(self, waited_s: float) -> None:
        """Count seconds for which the consumer was blocked until a batch was on its device."""
        with self._lock:
            self.handover.count()
            self.handover.count_copy_wait(waited_s)

    def stats(self) -> FeedStats:
        """A snapshot of the counts. Blocks for the microseconds that the feed's thread holds its lock."""
        with self._lock:
            self.handover.count()
            is_waiting = self.handover.is_waiting
            wait = self.handover.wait(self._life_so_far(), self._prefetch.later_ready_s) if is_waiting else None
            feed_state = standing(self._parts.fleet, self._dispatch, self._prefetch, wait=wait)
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
            self.handover.count()
            self.handover.end_wait()
            self.handover.discard()

    # The consumer's side.

    def _join(self) -> None:
        """Wait until the thread has ended. Raises RuntimeError if it does not."""
        until_s = time.monotonic() + _JOIN_S
        while not self._ended:
            if time.monotonic() > until_s:
                before = self._error or self._plan_error
                why = f"; before that: {in_words(before)}" if before is not None else ""
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
        """Have the batch for a place handed over, or None if the plan is over. Returns whether it is so."""
        if not self.handover.take(place):
            if not (self._plan_over and self._prefetch.empty):
                return False
            if self._plan_error is not None:  # which kept the next batch from being planned
                raise again(self._plan_error)
            self.handover.handed = None
        self.handover.count()
        self.handover.end_wait()  # of one that was taken before, and not given
        return True

    def _check_alive(self) -> None:
        if self.stop_switch.thrown:
            raise RuntimeError("the loader is closed")
        if isinstance(self._error, FramefeedError):
            raise self._error
        if self._error is not None or self._ended:
            why = "" if self._error is None else f": {in_words(self._error)}"
            raise RuntimeError(f"the feed's thread died{why}") from self._error
        silent_s = time.monotonic() - self._beat_s
        if silent_s > max(self._parts.stall_s, _TURN_MAX_S):
            raise Stalled(f"the feed's thread has not turned for {silent_s:.0f} s")

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
                self.handover.count()
                self._dispatch.close()
                if self.stop_switch.thrown:
                    self.handover.discard()
        finally:
            self._ended = True
            self._bell.put(None)

    def _ring(self) -> None:
        """Have the consumer look again."""
        if self._bell.empty():
            self._bell.put(None)

    def _turn(self, wire: Wire) -> None:
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
            may_gather = self._prefetch.ready and self._dispatch.only_awaits and not self._lags
            busy = self._prefetch.has_room and not self._plan_over
            is_shallow = not (self._prefetch.has_room or self._plan_over) and self._dispatch.holds.has_spare
            self._dispatch.lives.shallow(is_shallow, now_s)
            self._count_cpu()
        for send in sends:
            self._send(wire, send)
            self._pauses.step(time.monotonic())
        timeout_s = TICK_S if wake_s is None else min(max(wake_s - time.monotonic(), 0.0), TICK_S)
        if may_gather and not busy:
            timeout_s -= self._gather(min(timeout_s, _GATHER_S))
        self._lags = False
        self._listen(wire, 0.0 if busy else timeout_s)

    def _gather(self, most_s: float) -> float:
        """Answers would change nothing now: they are taken in together, at once when the consumer takes its batch. A
        turn for each would be time of the core that the consumer works on. Returns for how long nobody was heard.
        """
        began_s = time.monotonic()
        self.stop_switch.await_rouse(most_s)
        now_s = time.monotonic()
        self._pauses.step(now_s, wait_s=most_s)
        with self._lock:
            self._dispatch.lives.planning(True, began_s)
            self._dispatch.lives.planning(False, now_s)
        return min(now_s - began_s, most_s)

    def _count_cpu(self) -> None:
        """Of this thread, since it was last counted."""
        cpu_s = time.thread_time()
        self._ledger.receive_cpu_s += cpu_s - self._cpu_s
        self._cpu_s = cpu_s

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
            self._lags = True
            return
        with self._lock:
            happened = self._dispatch.connected if signal.kind is Kind.CONNECTED else self._dispatch.disconnected
            happened(signal.url, now_s=time.monotonic())
            self._settle()

    def _receive(self, wire: Wire, url: str, header: bytes) -> None:
        """Take a message in. Whatever it comes to costs its server the connection and not the run its feed."""
        try:
            reply = read_reply(url, header)
            pixel_bytes = wire.pixels(url, self._place_of(url, reply))
        except Exception:
            with self._lock:
                self._connect_anew(wire, url)
                self._settle()
            return
        with self._lock:  # a clip that is here is held before anybody counts
            try:
                self._take_in(url, reply, header, pixel_bytes=pixel_bytes)
            except Exception:
                self._connect_anew(wire, url)
            self._settle()  # what ends a run on purpose is raised by this

    def _connect_anew(self, wire: Wire, url: str) -> None:
        _log.exception("a reply of %s failed in a way that is a bug; its connection is made anew", url)
        self._ledger.dropped_replies["internal"] += 1
        self._dispatch.disconnected(url, now_s=time.monotonic())
        wire.disconnect(url)
        wire.connect(url)

    def _place_of(self, url: str, reply: Incoming) -> npt.NDArray[np.uint8] | None:
        """Where the pixels behind a reply are wanted."""
        if not isinstance(reply, ClipReply):
            return None
        with self._lock:
            ticket = self._dispatch.expects(url, reply.attempt)
            return None if ticket is None else self._prefetch.row(ticket)

    def _take_in(self, url: str, reply: Incoming, header: bytes, *, pixel_bytes: int) -> None:
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
