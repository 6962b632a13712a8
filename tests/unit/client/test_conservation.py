"""Whatever servers do, every place of the plan is used exactly once, in order, and every request is accounted for.

The real dispatch, fleet and prefetcher over a fake wire and a fake clock: Hypothesis plays the network and the servers.
"""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from framefeed.wire import CancelCall, DecodeCall, Reply
from tests.unit.client.clips import CLIP_BYTES, POLICY, clip, error, plan, who
from trainer_client.feed.prefetch import Prefetch
from trainer_client.feed.slots import SlotPool
from trainer_client.feed.stand_ins import PoisonOptions, StandIns
from trainer_client.fleet.attempts import Stage
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet, FleetLimits
from trainer_client.fleet.messages import Got, Send
from trainer_client.fleet.server import State
from trainer_client.fleet.timeout_estimator import TimeoutLimits
from trainer_client.measures.stats import FeedState, Ledger, snapshot
from trainer_client.samples import Sample

URLS = ("tcp://a:1", "tcp://b:1", "tcp://c:1")
STEPS, BATCH, DEPTH, CREDIT_CLIPS = 20, 3, 4, 7
HEDGE_SHARE = 0.25
DATASET = [Sample(video=f"video{i}", start_s=0, end_s=1) for i in range(10)]
UNANSWERED = ("deadline_exceeded", "server_lost", "malformed")
TRANSIENT = (
    *("busy", "draining", "server_lost", "deadline_exceeded", "storage_fault"),
    *("not_here", "resource_exhausted", "cancelled"),
)


class World(RuleBasedStateMachine):
    """Up to three servers that connect, answer in any way and order, fall silent, die, haunt or turn into others.

    They hear of cancels, and the client itself pauses.
    No server can give the `bad` samples; within `window` batches, those that are ready may overtake.
    """

    bad: frozenset[str] = frozenset()
    window = 1

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.ledger = Ledger()
        self.fleet = Fleet(URLS, limits=FleetLimits(member_grace_s=1e9), seed=1, now_s=0.0, ledger=self.ledger)
        limits = DispatchLimits(
            stall_s=1e9,
            inflight_bytes=CREDIT_CLIPS * CLIP_BYTES,
            timeouts=TimeoutLimits(enough=3, attempt_min_s=0.5),
            hedge_share=HEDGE_SHARE,
        )
        self.dispatch = Dispatch(self.fleet, limits, ledger=self.ledger)
        slots = SlotPool(BATCH * POLICY.clip_bytes, spare=DEPTH)
        self.prefetch = Prefetch(slots, batch_clips=BATCH, depth_batches=DEPTH, window_batches=self.window)
        poison = PoisonOptions(policy="replace", budget=len(DATASET))
        self.stand_ins = StandIns(DATASET, poison, ledger=self.ledger)
        self.connected: set[str] = set()
        self.calls: dict[str, deque[Send]] = {url: deque() for url in URLS}
        self.ghosts: list[Send] = []  # asked of a server that is thought dead; it may yet answer
        self.opened = 0
        self.used: list[int] = []
        self.steps: list[int] = []

    # The feed's part.

    def turn(self, own_silence_s: float = 0.0) -> None:
        if self.opened < STEPS and self.prefetch.has_room:
            wanted = plan(self.opened, batch=BATCH)
            for ticket, request in zip(self.prefetch.open(wanted), wanted.requests, strict=True):
                self.dispatch.want(ticket, request, now_s=self.now_s)
            self.opened += 1
        for send in self.dispatch.tick(self.now_s, own_silence_s=own_silence_s):
            if send.url in self.connected:
                self.calls[send.url].append(send)
            else:
                self.dispatch.unsent(send, now_s=self.now_s)
        self.settle()

    def settle(self) -> None:
        for end in self.dispatch.finished():
            if isinstance(end, Got):
                self.prefetch.fill(end.ticket, end.reply.info, end.life)
                continue
            request = self.prefetch.stand_in(end.ticket, self.stand_ins.after, end.error)
            assert request is not None
            self.dispatch.want(end.ticket, request, now_s=self.now_s)

    def deliver(self, send: Send, reply: Reply, *, pixel_bytes: int = CLIP_BYTES) -> None:
        self.dispatch.replied(send.url, reply, pixel_bytes=pixel_bytes, now_s=self.now_s)
        self.settle()

    def answer_well(self, send: Send) -> None:
        """As a server does: a cancel has no reply of its own, but the call it is about has, if it is still there."""
        if not isinstance(send.call, CancelCall):
            self.deliver(send, self.good(send))
            return
        queue = self.calls[send.url]
        cancelled = [s for s in queue if isinstance(s.call, DecodeCall) and s.call.attempt == send.call.attempt]
        for found in cancelled:
            queue.remove(found)
            self.deliver(found, error(send.call.attempt, "cancelled"))

    def good(self, send: Send) -> Reply:
        if isinstance(send.call, DecodeCall):
            if send.call.request.video in self.bad:
                return error(send.call.attempt, "corrupt_media")
            return clip(send.call.attempt, send.call.request.seed % (1 << 40))
        return who(send.call.attempt, dataset="d1")

    # The world's part.

    @initialize(begins=st.sampled_from(["cold", "warm", "warm", "warm"]))
    def begin(self, begins: str) -> None:
        """Warm: everybody is there, and answered often enough that deadlines and hedges follow from it."""
        if begins == "warm":
            for url in URLS:
                self.connect(url)
            for _ in range(3):
                self.answer_all()
                self.now_s += 0.01
                self.consume()

    @rule()
    def answer_all(self) -> None:
        for url in URLS:
            while self.calls[url]:
                self.answer_well(self.calls[url].popleft())
        self.turn()

    @rule(after_s=st.sampled_from([0.0, 0.001, 0.05, 1.0, 4.0, 12.0]))
    def time_passes(self, after_s: float) -> None:
        self.now_s += after_s
        self.turn()

    @rule(after_s=st.sampled_from([0.5, 4.0, 60.0]))
    def pause(self, after_s: float) -> None:
        """Nobody listens for so long: nothing is asked anew and nobody blamed for it."""
        self.turn()
        ledger = self.ledger
        before = (ledger.overdue, ledger.hedged, ledger.retries.copy(), ledger.outcomes.copy())
        self.now_s += after_s
        self.turn(own_silence_s=after_s)
        assert (ledger.overdue, ledger.retries, ledger.outcomes) == (before[0], *before[2:])

    @precondition(lambda self: self.fleet.identity.dataset)
    @rule(url=st.sampled_from(URLS))
    def turn_into_another(self, url: str) -> None:
        self.dispatch.replied(url, who(1, dataset="d2"), pixel_bytes=0, now_s=self.now_s)
        if url in self.fleet.servers:
            self.ghosts += self.calls[url]
            self.calls[url].clear()
            assert self.fleet.servers[url].state in (State.SHUNNED, State.OFFLINE) or self.fleet.servers[url].leaves
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

    @rule(url=st.sampled_from(URLS))
    def leave(self, url: str) -> None:
        self.dispatch.left(url, now_s=self.now_s)
        self.turn()

    @rule(url=st.sampled_from(URLS))
    def join(self, url: str) -> None:
        if url not in self.fleet.servers:  # its old connection was closed
            self.connected.discard(url)
            self.ghosts += self.calls[url]
            self.calls[url].clear()
        self.dispatch.joined(url, now_s=self.now_s)
        self.turn()

    @precondition(lambda self: any(self.calls.values()))
    @rule(data=st.data(), copies=st.sampled_from([1, 1, 1, 2]))
    def answer(self, data: st.DataObject, copies: int) -> None:
        queue = self.calls[data.draw(st.sampled_from([url for url in URLS if self.calls[url]]))]
        queue.rotate(-data.draw(st.integers(0, len(queue) - 1)))
        send = queue.popleft()
        for _ in range(copies):
            self.answer_well(send)
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
        self.answer_well(self.ghosts.pop(data.draw(st.integers(0, len(self.ghosts) - 1))))
        self.turn()

    @rule()
    def consume(self) -> None:
        delivery = self.prefetch.peek()
        if delivery is None:
            return
        self.prefetch.release(delivery.number)
        batch = delivery.batch
        assert [info.read_bytes for info in batch.infos] == [seed % (1 << 40) for seed in batch.seeds.tolist()]
        assert not {sample.video for sample in batch.samples} & self.bad
        planned = plan(batch.step, batch=BATCH)
        for row, sample in enumerate(planned.samples):
            stood_in = [s for s in batch.stand_ins if s.position == batch.positions[row]]
            assert stood_in or (batch.samples[row] == sample and sample.video not in self.bad)
        self.used += batch.positions.tolist()
        self.steps.append(batch.step)
        self.ledger.used += BATCH
        self.turn()

    # What holds at every instant.

    @invariant()
    def requests_are_conserved(self) -> None:
        feed_state = FeedState(in_flight=self.dispatch.in_flight, held=self.prefetch.held)
        stats = snapshot(self.ledger, feed_state, rank=0)
        assert stats.conserved, stats

    @invariant()
    def in_flight_is_counted_once_and_bounded(self) -> None:
        assert sum(len(server.attempts) for server in self.fleet.servers.values()) == self.dispatch.in_flight
        assert self.fleet.inflight_bytes == self.dispatch.in_flight * CLIP_BYTES <= CREDIT_CLIPS * CLIP_BYTES
        for server in self.fleet.servers.values():
            assert server.state in (State.TRIAL, State.UP, State.DRAINING) or not server.attempts
            assert server.state is not State.TRIAL or len(server.attempts) <= 1

    @invariant()
    def hedges_keep_their_budget_and_each_ends_once(self) -> None:
        ledger = self.ledger
        lost = sum(ledger.outcomes[url, why] for url, why in ledger.outcomes if why in UNANSWERED)
        assert ledger.hedged <= HEDGE_SHARE * ledger.requested + lost + ledger.overdue
        open_hedges = sum(attempt.hedge for attempt in self.dispatch.attempts)
        assert ledger.hedged == sum(ledger.hedges.values()) + open_hedges

    @invariant()
    def every_wanted_clip_is_waited_for_in_one_place(self) -> None:
        """In flight at different servers, waiting or resting: never in two of them, never in none."""
        live = [a for a in self.dispatch.attempts if not a.wanted.done and a.stage is not Stage.CANCELLED]
        asked = [(attempt.wanted.ticket, attempt.url) for attempt in live]
        assert len(set(asked)) == len(asked)
        assert max(Counter(ticket for ticket, _ in asked).values(), default=0) <= 2
        assert sorted({*{ticket for ticket, _ in asked}, *self.dispatch.idle}) == sorted(self.dispatch.wanted)
        assert not {ticket for ticket, _ in asked} & set(self.dispatch.idle)

    @invariant()
    def nothing_waits_past_its_bound(self) -> None:
        for attempt in self.dispatch.attempts:
            longest_s = 1.0 if attempt.stage is Stage.CANCELLED else 10.0
            assert attempt.give_up_s - attempt.sent_s - attempt.unheard_s <= 10.0 + 1e-6
            assert self.now_s < attempt.look_s <= self.now_s + longest_s + 1e-6
            assert attempt.stage is not Stage.CANCELLED or attempt.outcome in ("superseded", "deadline_exceeded")

    @invariant()
    def places_are_used_once_and_in_order_within_the_window(self) -> None:
        assert len(set(self.used)) == len(self.used)
        assert all(abs(step - place) < self.window for place, step in enumerate(self.steps))

    def teardown(self) -> None:
        """When the servers behave again, the whole plan arrives, soon."""
        for url in URLS:
            self.join(url)
            self.connect(url)
        for _ in range(40 * STEPS * BATCH):
            if len(self.used) == STEPS * BATCH:
                break
            self.answer_all()
            self.consume()
            self.now_s += 0.5
            self.turn()
        assert sorted(self.used) == list(range(STEPS * BATCH))
        self.places_are_used_once_and_in_order_within_the_window()
        self.requests_are_conserved()


class PoisonedWorld(World):
    """Three samples of ten are bad, and batches may overtake within three."""

    bad = frozenset({"video2", "video5", "video9"})
    window = 3


TestWorld = World.TestCase
TestPoisonedWorld = PoisonedWorld.TestCase
TestWorld.settings = TestPoisonedWorld.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
