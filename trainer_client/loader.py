"""ClipLoader: batches of clips from decode servers, in plan order, with a state to resume from.

The public face of feeding: it checks what the user gives, builds the parts and runs the feed. NumPy only, no torch; it
decides nothing about servers or order itself.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, get_args

from prometheus_client import CollectorRegistry

from framefeed.errors import BadInput, FramefeedError
from framefeed.show_value import show_value
from framefeed.wire import WorkClass
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.feed.feed import Feed, Parts
from trainer_client.feed.order import Order, window_of
from trainer_client.feed.planned_batches import planned_batches
from trainer_client.feed.prefetch import BatchPlan, Prefetch
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.feed.slots import Allocate, SlotPool, ordinary_memory
from trainer_client.feed.stand_ins import PoisonOptions, StandIn, StandIns, read, spell
from trainer_client.feed.stop_switch import end_dropped
from trainer_client.fleet.addresses import check_servers
from trainer_client.fleet.discovery import sources_of
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet, FleetLimits
from trainer_client.fleet.run_identity import RunIdentity
from trainer_client.fleet.timeout_estimator import TimeoutLimits
from trainer_client.home_process import HomeProcess
from trainer_client.measures.metrics import FeedCollector
from trainer_client.measures.stats import FeedState, FeedStats, Ledger, snapshot
from trainer_client.memory_budgets import NodeBudgets, RankBudgets, rank_budgets
from trainer_client.node_memory import local_ranks, node_memory_bytes
from trainer_client.samples import Dataset
from trainer_client.transports.connection import Connections
from trainer_client.transports.credentials import Credentials
from trainer_client.transports.transport import IO_THREADS, TransportLimits

_log = logging.getLogger(__name__)

# Each option's default is declared once, by its owner.
_MAX_NAME = 4096  # of what a state says
_DISPATCH, _FLEET = DispatchLimits(), FleetLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """What a user chooses about feeding.

    `servers` are addresses; dns+ before one means every address of its name, looked up every `look_every_s`, and
    registry:///FOLDER the servers that have an entry there, looked at as often. `batch_clips` is per rank. The run ends
    after `steps` steps or `epochs` epochs, or never. Without `shuffle` every epoch is in the dataset's order.

    Prefetched batches are at most `prefetch_batches` a rank; the memory of prefetched batches at most `prefetch_bytes`
    and that of clips asked for and not yet received at most `inflight_bytes`, of all `local_ranks` ranks of this node
    together: each has an even part. None is a fourth and a 32nd of the memory that is there when the loader is made, at
    most 2 GiB and 256 MiB a rank, at least one batch and one clip. Client memory is bounded by the sum of both and the
    batches that the user holds. `local_ranks` is what torchrun says (LOCAL_WORLD_SIZE), else 1.

    A clip is asked of a second server after three times the p99 of recent answers, from `attempt_min_s` to
    `attempt_s`; from one that lives it may take `attempt_s`. One of the oldest batch is asked of a second server when
    it takes longer than 95 % do, for up to `hedge_share` of all requests, and a clip that lost an attempt of two at
    once. Each part of a video has a home among the servers, passed over when its load would be more than
    1 + `affinity_slack` of the mean; None is no homes. Storage that fails is tried again, ever more rarely; its clip is
    held to be bad after half of `stall_s` in which others came through. Without any clip for `stall_s` the run says who
    waits for what, and fails or goes on as `on_stall` says.

    Servers with another data set, decoder or version than most, or than the run began with, are not used; neither are
    those without room for a clip. The run ends when all there are have been such for `member_grace_s`; as long are
    servers that are away waited for before the others' word on a bad clip is final. `run` and `work_class` are told to
    the servers, which share their time between runs and serve evaluations first.

    `order` is "strict", the plan's, or "window:W": a batch that is ready may overtake, if fewer than W batches lie
    between it and the oldest that is not; for one rank only, as several would take different steps. Batches themselves
    are the same, each is used once, and which was used when is in the state. `poison` says what becomes of clips that
    no server can give; batches keep their shape whatever it says, and ranks their steps. `io_threads` are ZeroMQ's,
    over which tcp:// connections are spread.
    """

    servers: Sequence[str]
    batch_clips: int
    run_seed: int = 0
    rank: int = 0
    world_size: int = 1
    steps: int | None = None
    epochs: float | None = None
    shuffle: bool = True
    prefetch_batches: int = 8
    prefetch_bytes: int | None = None
    inflight_bytes: int | None = None
    local_ranks: int = field(default_factory=local_ranks)
    attempt_s: float = _DISPATCH.timeouts.attempt_s
    attempt_min_s: float = _DISPATCH.timeouts.attempt_min_s
    hedge_share: float = _DISPATCH.hedge_share
    affinity_slack: float | None = _FLEET.affinity_slack
    stall_s: float = _DISPATCH.stall_s
    on_stall: Literal["fail", "log"] = "fail"
    look_every_s: float = 5.0
    allow_mixed_decoders: bool = False
    member_grace_s: float = _FLEET.member_grace_s
    run: str = _DISPATCH.run
    work_class: WorkClass = _DISPATCH.work_class
    io_threads: int = IO_THREADS
    credentials: Credentials = field(default_factory=Credentials)
    order: str = "strict"
    poison: PoisonOptions = field(default_factory=PoisonOptions)
    per_server_metrics: bool = False

    def __post_init__(self) -> None:
        check_servers(self.servers)
        if self.steps is not None and self.epochs is not None:
            raise BadInput(f"loader: steps is {self.steps} and epochs is {self.epochs:g}; wanted at most one of them")
        for name in ("steps", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise BadInput(
                    f"loader: {name} is {value}, wanted at least 0 and finite, or None for a run without end"
                )
        if not self.look_every_s > 0:
            raise BadInput(f"loader: look_every_s is {self.look_every_s:g}, wanted more than 0 seconds")
        for name in ("prefetch_batches", "local_ranks"):
            if getattr(self, name) < 1:
                raise BadInput(f"loader: {name} is {getattr(self, name)}, wanted at least 1")
        if self.on_stall not in ("fail", "log"):
            raise BadInput(f"loader: on_stall is {self.on_stall!r}, wanted 'fail' or 'log'")
        if self.work_class not in get_args(WorkClass):
            raise BadInput(f"loader: work_class is {self.work_class!r}, wanted 'train' or 'eval'")
        if self.io_threads < 1:
            raise BadInput(f"loader: io_threads is {self.io_threads}, wanted at least 1")
        window_of(self.order, world_size=self.world_size)

    def dispatch_limits(self, budgets: RankBudgets) -> DispatchLimits:
        """What of it is the dispatch's. Raises BadInput for values out of their limits."""
        return DispatchLimits(
            timeouts=TimeoutLimits(attempt_s=self.attempt_s, attempt_min_s=self.attempt_min_s),
            hedge_share=self.hedge_share,
            head_clips=self.batch_clips * window_of(self.order, world_size=self.world_size),
            witnesses=self.poison.servers,
            storage_s=self.stall_s / 2,
            stall_s=self.stall_s,
            stall_ends=self.on_stall == "fail",
            inflight_bytes=budgets.inflight_bytes,
            run=self.run,
            work_class=self.work_class,
        )

    def fleet_limits(self) -> FleetLimits:
        """What of it is the fleet's. Raises BadInput for values out of their limits."""
        return FleetLimits(affinity_slack=self.affinity_slack, member_grace_s=self.member_grace_s)

    def rank_budgets(self, clip_bytes: int) -> RankBudgets:
        """What this rank may hold of such clips, said in one log line; reads how much memory there is.

        Raises BadInput when a budget does not hold what it must.
        """
        node = NodeBudgets(
            prefetch_bytes=self.prefetch_bytes, inflight_bytes=self.inflight_bytes, local_ranks=self.local_ranks
        )
        memory_bytes = node_memory_bytes()
        budgets = rank_budgets(node, memory_bytes=memory_bytes, clip_bytes=clip_bytes, batch_clips=self.batch_clips)
        _log.info(
            "memory of this rank, one of %d of its node: %d MiB for batches made ahead (%s), %d MiB for clips in "
            "flight (%s); the node has %s",
            self.local_ranks,
            budgets.prefetch_bytes >> 20,
            "derived" if self.prefetch_bytes is None else "given",
            budgets.inflight_bytes >> 20,
            "derived" if self.inflight_bytes is None else "given",
            "memory unknown" if memory_bytes is None else f"{memory_bytes >> 20} MiB to give",
        )
        return budgets


class ClipLoader(HomeProcess):
    """An iterator of Batch in strict plan order: the same batches from any servers, whatever fails on the way.

    It begins to prefetch at the first next() and may begin before its servers do. After an error that ended the feed,
    load_state_dict(state_dict()) makes it try again from the batch that was next. Use it in a `with`, or close() it.
    One thread iterates; any thread may read `stats` and `options`. It belongs to the process that made it: in another
    one everything but close(), which does nothing there, raises BadInput, and so does pickling it.
    """

    def __init__(
        self,
        dataset: Dataset,
        policy: ClipPolicy,
        options: LoaderOptions,
        *,
        registry: CollectorRegistry | None = None,
        allocate: Allocate = ordinary_memory,
    ) -> None:
        """`registry` gets the feed's metrics until close(); `allocate` makes the memory of batch slots (pinned, say).

        Raises BadInput, in one line, for options that contradict themselves, the dataset or the size of a clip, and
        ValueError for a registry that has a feed already: one feed a registry.
        """
        super().__init__()
        share = Share(batch_clips=options.batch_clips, rank=options.rank, world_size=options.world_size)
        self._dataset, self._policy, self.options = dataset, policy, options
        self._sampler = Sampler(samples=len(dataset), run_seed=options.run_seed, share=share, shuffle=options.shuffle)
        budgets = options.rank_budgets(policy.clip_bytes)
        self._depth_batches = min(
            options.prefetch_batches, budgets.prefetch_bytes // (policy.clip_bytes * options.batch_clips)
        )
        self._limits, self._fleet_limits = options.dispatch_limits(budgets), options.fleet_limits()
        options.credentials.protection.check(options.servers)
        self._secrets = options.credentials.watch()
        shape = (options.batch_clips, *policy.shape)
        self._slots = SlotPool(shape, spare=self._depth_batches + 1, allocate=allocate)
        self._ledger = Ledger()
        self._feed: Feed | None = None
        self._order = Order()
        self._replayed: list[int] | None = None  # the plan's steps to use, instead of all
        self._stand_ins = StandIns(dataset, options.poison, ledger=self._ledger)
        self._stood_in: list[tuple[int, StandIn]] = []  # with the number of steps before it
        self._fingerprint: str | None = None
        self._data: str | None = None  # which data set the servers have
        self._closed = False
        self._registry = registry
        self._dropped: weakref.finalize[..., ClipLoader] | None = None  # ends the feed's thread
        itself = weakref.ref(self)  # what the registry and the thread hold must not hold the loader
        self._collector = FeedCollector(
            lambda: None if (loader := itself()) is None else loader.stats, per_server=options.per_server_metrics
        )
        if registry is not None:
            self._collector.register(registry)

    @property
    def steps(self) -> int | None:
        """Steps of the whole run, the same for all ranks; None if it has no end."""
        if self._replayed is not None:
            return len(self._replayed)
        if self.options.epochs is not None:
            return self._sampler.steps_in(self.options.epochs)
        return self.options.steps

    @property
    def steps_per_epoch(self) -> int:
        """Steps that use every sample once; where the global batch does not divide them, the last begins anew."""
        return self._sampler.steps_in(1)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of `pixels` of every batch."""
        return self._slots.shape

    @property
    def stats(self) -> FeedStats:
        """The counts so far, over all restarts. Blocks for microseconds; safe from any thread, also after close()."""
        self._check_home()
        feed = self._feed
        return feed.stats() if feed is not None else snapshot(self._ledger, FeedState(), rank=self.options.rank)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch. Blocks while its clips are on their way, for at most `stall_s` without any progress.

        Raises the Permanent error of a clip that no server can give, unless others may stand in, at its batch and again
        at every call (the message names video, span and server); PoisonBudgetSpent, the same way; StorageFault if the
        quarantine list cannot be written; Stalled when nothing came for `stall_s`; BadInput when no server fits the
        run; RuntimeError after close(), or if the feed's thread died.
        """
        self._check_home()
        if self._closed:
            raise RuntimeError("the loader is closed")
        if self.steps is not None and self._order.steps >= self.steps:
            raise StopIteration
        if self._feed is None:
            self._feed = self._start()
        self._stand_ins.write_found()
        try:
            batch = self._feed.next_batch()
        except FramefeedError:
            self._stand_ins.write_found()
            raise
        if batch is None:
            raise StopIteration
        self._stood_in += [(self._order.steps, stand_in) for stand_in in batch.stand_ins]
        self._order.deliver(batch.step)
        return batch

    def count_copy_wait(self, waited_s: float) -> None:
        """Count seconds for which the consumer was blocked until a batch was on its device, as waited for a copy.

        Whoever copies calls it, with the time beyond next(); in the stats it is one more cause.
        """
        if self._feed is None:
            raise RuntimeError("no batch was delivered that could have been copied")
        self._feed.count_copy_wait(waited_s)

    def state_dict(self) -> dict[str, int | str | None]:
        """Where the run stands: after the batches that next() delivered. What is prefetched beyond is not in it."""
        return self.state_after(self._order.steps)

    def state_after(self, steps: int) -> dict[str, int | str | None]:
        """The state of the run once `steps` steps are done: for a consumer that holds batches it has not used yet.

        An order other than the plan's ("order") and stand-ins ("stand_ins") are in it as text, so that the run can go
        on, and its past be replayed.
        """
        self._check_home()
        if self._feed is not None:
            self._fingerprint, self._data = self._feed.fingerprint or None, self._feed.dataset or None
        served_by = {"decoder_fingerprint": self._fingerprint, "dataset": self._data}
        state = {**self._sampler.state_at(steps), **served_by}
        order = self._order.spell(steps)
        if order is not None:
            state |= {"order": order}
        stood_in = [stand_in for before, stand_in in self._stood_in if before < steps]
        return state | ({"stand_ins": spell(stood_in)} if stood_in else {})

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where the run with this state stood; what is prefetched is discarded. Blocks as close() does.

        Batches that were overtaken and not used yet come first. Raises BadInput, naming both values, when run seed,
        number of samples, global batch, shuffling or the order's version differ, or when batches were overtaken and
        there is more than one rank; servers with another decoder than the run's are refused when they show themselves.
        """
        self._check_home()
        order = self._order_in(state)
        self._restart(state, order)
        self._stand_ins.restart(stand_in for _, stand_in in self._stood_in)

    def replay(self, state: Mapping[str, object]) -> None:
        """Deliver again, from the first step on, what the run with this state had used: the same batches in the same
        order with the same stand-ins; then it ends. Blocks as close() does. Raises as load_state_dict() does.
        """
        self._check_home()
        order = self._order_in(state)
        try:
            used = order.used(order.steps)
        except ValueError as error:
            raise BadInput(f"replay: the state cannot be replayed ({error})") from None
        self._restart(state, Order())
        self._replayed = used
        self._stand_ins.restart((stand_in for _, stand_in in self._stood_in), replay=True)
        self._stood_in = []

    def _order_in(self, state: Mapping[str, object]) -> Order:
        order = Order.read(state.get("order"), steps=self._sampler.step_of(state))
        if self.options.world_size > 1 and order.has_gaps(order.steps):
            raise BadInput(
                f"resume: the state's order has batches that were overtaken and not used yet, and world_size is "
                f"{self.options.world_size}, wanted 1: go on with one rank until they are used"
            )
        return order

    def _restart(self, state: Mapping[str, object], order: Order) -> None:
        fingerprint, data = _name_in(state, "decoder_fingerprint"), _name_in(state, "dataset")
        stood_in = read(state.get("stand_ins"), self._dataset)
        self._stop()
        self._feed = self._replayed = None
        self._order, self._fingerprint, self._data = order, fingerprint, data
        self._stood_in = [(-1, stand_in) for stand_in in stood_in]

    def close(self) -> None:
        """Stop prefetching and let the servers go. Idempotent; blocks for at most 5 s. Batches held stay valid.

        Raises RuntimeError if the feed's thread does not end in that time, StorageFault if the quarantine list cannot
        be written.
        """
        if self._closed or not self._is_home:
            return
        self._closed = True
        if self._registry is not None:
            self._collector.unregister(self._registry)
        self._stop()
        self._slots.close()
        self._stand_ins.write_found()

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        o = self.options
        return (
            f"ClipLoader(step {self._order.steps} of {self.steps}, rank {o.rank} of {o.world_size}, "
            f"{o.batch_clips} clips of {self._policy.shape} a batch, {self._depth_batches} batches ahead, "
            f"{len(o.servers)} servers)"
        )

    def _stop(self) -> None:
        if self._feed is not None:
            self._feed.close()
        if self._dropped is not None:
            self._dropped.detach()

    def _start(self) -> Feed:
        options = self.options
        fleet = Fleet(
            (),
            limits=self._fleet_limits,
            seed=options.run_seed ^ options.rank,
            now_s=time.monotonic(),
            identity=RunIdentity(
                fingerprint=self._fingerprint or "",
                dataset=self._data or "",
                clip_bytes=self._policy.clip_bytes,
                allow_mixed_decoders=options.allow_mixed_decoders,
            ),
            ledger=self._ledger,
        )
        parts = Parts(
            sources=sources_of(options.servers),
            look_every_s=options.look_every_s,
            fleet=fleet,
            dispatch=Dispatch(fleet, self._limits, ledger=self._ledger, say=_log.error),
            prefetch=Prefetch(
                self._slots,
                depth_batches=self._depth_batches,
                window_batches=window_of(options.order, world_size=options.world_size) if self._replayed is None else 1,
            ),
            policy=self._policy,
            stand_ins=self._stand_ins,
            ledger=self._ledger,
            rank=options.rank,
            stall_s=options.stall_s,
            protection=options.credentials.protection,
        )
        limits = TransportLimits(
            clip_bytes=self._policy.clip_bytes, secrets=self._secrets, io_threads=options.io_threads
        )
        feed = Feed(self._plan(), parts, open_wire=lambda wake: Connections(limits, wake=wake))
        self._dropped = weakref.finalize(self, end_dropped, feed.stop_switch, made_in=self._made_in, what=repr(self))
        feed.start()
        _log.info("feeding from step %d: %r", self._order.steps, self)
        return feed

    def _plan(self) -> Iterator[BatchPlan]:
        """The batches that are not delivered yet, as the feed's thread wants them."""
        done, replayed = self._order.steps, self._replayed
        steps = self._order.remaining(self.steps) if replayed is None else iter(replayed[done:])
        return planned_batches(steps, self._dataset, self._policy, sampler=self._sampler, stand_ins=self._stand_ins)

    @property
    def _rank(self) -> str:
        return f"rank {self.options.rank} of {self.options.world_size}"


def _name_in(state: Mapping[str, object], key: str) -> str | None:
    name = state.get(key)
    if name is not None and not (isinstance(name, str) and len(name) <= _MAX_NAME):
        raise BadInput(f"resume: {key} is {show_value(name)}, wanted nothing or at most {_MAX_NAME} characters")
    return name
