"""Trainers' real dispatch and fleet, against the simulated servers: what a rank asks of whom is the product's own.

What is left out is all that moves bytes, as there; a trainer wants so many clips at once, for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import structs

from framefeed.wire import CancelCall, DecodeCall, DescribeCall, Load, WorkClass
from tests.unit.client.clips import CLIP_BYTES, clip, error, request, who
from tests.unit.server.simulated_servers import Clock, Server
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet, FleetLimits
from trainer_client.fleet.messages import Got, Send
from trainer_client.measures.stats import Ledger

DEADLINE_S = DispatchLimits().told_deadline_s


@dataclass(kw_only=True)
class Trainer:
    """One rank under the default options; `got` and `outcomes` count what its dispatch finished and was told."""

    name: bytes
    clock: Clock
    servers: list[Server]
    clip_s: Callable[[], float]
    ahead: int = 32
    batch_clips: int = 16
    run: str = "run"
    work_class: WorkClass = "train"
    deadline_s: float = DEADLINE_S
    got: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.ledger = Ledger()
        self._of = {f"tcp://server{n}:1": server for n, server in enumerate(self.servers)}
        seed = int.from_bytes(self.name)
        fleet = Fleet(list(self._of), limits=FleetLimits(), seed=seed, now_s=self.clock.now_s, ledger=self.ledger)
        limits = DispatchLimits(head_clips=self.batch_clips, run=self.run)
        self.dispatch = Dispatch(fleet, limits, ledger=self.ledger)
        self._sent: dict[int, str] = {}
        self._tickets = self._wanted = 0
        self._wakes_s: float | None = None

    def begin(self) -> None:
        for url in self._of:
            self.dispatch.connected(url, now_s=self.clock.now_s)
        self._turn()

    def replied(self, number: int, outcome: str, granted: int, waited_s: float) -> None:
        """As of Client: the server's answer to the attempt of this number."""
        load = Load(credits=granted)
        reply = clip(number, load=load) if outcome == "clip" else structs.replace(error(number, outcome), load=load)
        pixel_bytes = CLIP_BYTES if outcome == "clip" else 0
        self.outcomes[outcome] += 1
        self.dispatch.replied(self._sent.pop(number), reply, pixel_bytes=pixel_bytes, now_s=self.clock.now_s)
        self._turn()

    def _turn(self) -> None:
        """As of a feed's thread: take what ended, want more, send what is to be sent, sleep until something is due."""
        now_s = self.clock.now_s
        ends = self.dispatch.finished()
        assert all(isinstance(end, Got) for end in ends), ends
        self.got += len(ends)
        self._wanted -= len(ends)
        while self._wanted < self.ahead:
            self.dispatch.want(self._tickets, request(self._tickets), now_s=now_s)
            self._tickets += 1
            self._wanted += 1
        for send in self.dispatch.tick(now_s):
            self._send(send)
        self._wake_at(self.dispatch.wake_s(now_s))

    def _send(self, send: Send) -> None:
        server, now_s = self._of[send.url], self.clock.now_s
        match send.call:
            case DescribeCall(attempt=attempt):
                load = Load(credits=server.describe(self))
                reply = who(attempt, workers=server.threads, load=load)
                self.dispatch.replied(send.url, reply, pixel_bytes=0, now_s=now_s)
                self.clock.after(0.0, self._turn)
            case DecodeCall(attempt=attempt):
                self._sent[attempt] = send.url
                self.clock.after(0.0, lambda: server.request(self, attempt))
            case CancelCall(attempt=attempt):
                self.clock.after(0.0, lambda: server.cancel(self, attempt))

    def _wake_at(self, at_s: float | None) -> None:
        if at_s is not None and (self._wakes_s is None or not self.clock.now_s <= self._wakes_s <= at_s):
            self._wakes_s = at_s
            self.clock.after(max(at_s - self.clock.now_s, 0.0), lambda: self._woken(at_s))

    def _woken(self, at_s: float) -> None:
        if self._wakes_s == at_s:
            self._wakes_s = None
            self._turn()
