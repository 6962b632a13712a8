"""Whatever servers do, every clip of the plan is used exactly once, in order, and every request is accounted for.

The real dispatch, fleet and prefetcher over a fake wire and a fake clock: Hypothesis plays the network and the servers.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from framefeed.wire import DecodeCall, Reply
from tests.unit.client.clips import CLIP_BYTES, POLICY, clip, error, plan, who
from trainer_client.dispatch import Dispatch, DispatchLimits, Got, Send
from trainer_client.fleet import Fleet, FleetLimits, State
from trainer_client.prefetch import Prefetch
from trainer_client.slots import SlotPool
from trainer_client.stats import Ledger, Standing, snapshot

URLS = ("tcp://a:1", "tcp://b:1", "tcp://c:1")
STEPS, BATCH, DEPTH, CREDIT_CLIPS = 12, 3, 4, 7
TRANSIENT = ("busy", "draining", "server_lost", "deadline_exceeded", "storage_fault")


class World(RuleBasedStateMachine):
    """Up to three servers that connect, answer in any way and order, fall silent, die and haunt."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.ledger = Ledger()
        self.fleet = Fleet(URLS, limits=FleetLimits(), seed=1, fingerprint=None, now_s=0.0)
        limits = DispatchLimits(stall_s=1e9, inflight_bytes=CREDIT_CLIPS * CLIP_BYTES)
        self.dispatch = Dispatch(self.fleet, limits, ledger=self.ledger)
        self.prefetch = Prefetch(SlotPool((BATCH, *POLICY.shape), spare=DEPTH), depth_batches=DEPTH)
        self.connected: set[str] = set()
        self.calls: dict[str, deque[Send]] = {url: deque() for url in URLS}
        self.ghosts: list[Send] = []  # asked of a server that is thought dead; it may yet answer
        self.opened = 0
        self.used: list[int] = []

    # The feed's part.

    def turn(self) -> None:
        if self.opened < STEPS and self.prefetch.has_room:
            wanted = plan(self.opened, batch=BATCH)
            for ticket, request in zip(self.prefetch.open(wanted), wanted.requests, strict=True):
                self.dispatch.want(ticket, request, now_s=self.now_s)
            self.opened += 1
        for send in self.dispatch.tick(self.now_s):
            if send.url in self.connected:
                self.calls[send.url].append(send)
            else:
                self.dispatch.unsent(send, now_s=self.now_s)
        self.settle()

    def settle(self) -> None:
        for end in self.dispatch.finished():
            assert isinstance(end, Got)
            self.prefetch.fill(end.ticket, end.reply.info, end.life)

    def deliver(self, send: Send, reply: Reply, *, pixel_bytes: int = CLIP_BYTES) -> None:
        self.dispatch.replied(send.url, reply, pixel_bytes=pixel_bytes, now_s=self.now_s)
        self.settle()

    def good(self, send: Send) -> Reply:
        if isinstance(send.call, DecodeCall):
            return clip(send.call.attempt, send.call.request.seed % (1 << 40))
        return who(send.call.attempt)

    # The world's part.

    @rule(after_s=st.sampled_from([0.0, 0.001, 0.05, 1.0, 4.0, 12.0]))
    def time_passes(self, after_s: float) -> None:
        self.now_s += after_s
        self.turn()

    @rule(url=st.sampled_from(URLS))
    def connect(self, url: str) -> None:
        self.ghosts += self.calls[url]
        self.calls[url].clear()
        self.connected.add(url)
        self.dispatch.connected(url, now_s=self.now_s)
        self.turn()

    @rule(url=st.sampled_from(URLS))
    def disconnect(self, url: str) -> None:
        self.connected.discard(url)
        self.ghosts += self.calls[url]
        self.calls[url].clear()
        self.dispatch.disconnected(url, now_s=self.now_s)
        self.turn()

    @precondition(lambda self: any(self.calls.values()))
    @rule(data=st.data(), copies=st.sampled_from([1, 1, 1, 2]))
    def answer(self, data: st.DataObject, copies: int) -> None:
        queue = self.calls[data.draw(st.sampled_from([url for url in URLS if self.calls[url]]))]
        queue.rotate(-data.draw(st.integers(0, len(queue) - 1)))
        send = queue.popleft()
        for _ in range(copies):
            self.deliver(send, self.good(send))
        self.turn()

    @precondition(lambda self: any(self.calls.values()))
    @rule(data=st.data(), code=st.sampled_from(TRANSIENT))
    def refuse(self, data: st.DataObject, code: str) -> None:
        queue = self.calls[data.draw(st.sampled_from([url for url in URLS if self.calls[url]]))]
        send = queue.popleft()
        self.deliver(send, error(send.call.attempt, code))
        self.turn()

    @precondition(lambda self: any(self.calls.values()))
    @rule(data=st.data())
    def answer_short(self, data: st.DataObject) -> None:
        queue = self.calls[data.draw(st.sampled_from([url for url in URLS if self.calls[url]]))]
        send = queue.popleft()
        self.deliver(send, self.good(send), pixel_bytes=CLIP_BYTES - 1)
        self.turn()

    @precondition(lambda self: any(self.calls.values()))
    @rule(data=st.data())
    def swallow(self, data: st.DataObject) -> None:
        queue = self.calls[data.draw(st.sampled_from([url for url in URLS if self.calls[url]]))]
        self.ghosts.append(queue.popleft())

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def haunt(self, data: st.DataObject) -> None:
        send = self.ghosts.pop(data.draw(st.integers(0, len(self.ghosts) - 1)))
        self.deliver(send, self.good(send))
        self.turn()

    @rule()
    def consume(self) -> None:
        delivery = self.prefetch.take()
        if delivery is None:
            return
        batch = delivery.batch
        assert [info.read_bytes for info in batch.infos] == [seed % (1 << 40) for seed in batch.seeds.tolist()]
        self.used += batch.positions.tolist()
        self.ledger.used += BATCH
        self.turn()

    # What holds at every instant.

    @invariant()
    def requests_are_conserved(self) -> None:
        standing = Standing(in_flight=self.dispatch.in_flight, held=self.prefetch.held)
        stats = snapshot(self.ledger, standing, rank=0)
        assert stats.conserved, stats

    @invariant()
    def in_flight_is_counted_once_and_bounded(self) -> None:
        assert sum(len(server.attempts) for server in self.fleet.servers.values()) == self.dispatch.in_flight
        assert self.fleet.inflight_bytes == self.dispatch.in_flight * CLIP_BYTES <= CREDIT_CLIPS * CLIP_BYTES
        for server in self.fleet.servers.values():
            assert server.state in (State.UP, State.DRAINING) or not server.attempts

    @invariant()
    def clips_are_used_once_and_in_order(self) -> None:
        assert self.used == list(range(len(self.used)))

    def teardown(self) -> None:
        """When the servers behave again, the whole plan arrives, soon."""
        for url in URLS:
            self.connect(url)
        for _ in range(40 * STEPS * BATCH):
            if len(self.used) == STEPS * BATCH:
                break
            for url in URLS:
                while self.calls[url]:
                    send = self.calls[url].popleft()
                    self.deliver(send, self.good(send))
            self.consume()
            self.now_s += 0.5
            self.turn()
        assert self.used == list(range(STEPS * BATCH))
        self.requests_are_conserved()


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
