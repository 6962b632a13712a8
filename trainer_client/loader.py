"""ClipLoader: batches of clips from decode servers, in plan order, with a state to resume from.

The public face of feeding: it checks what the user gives, builds the parts and runs the feed. NumPy only, no torch; it
decides nothing about servers or order itself.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from prometheus_client import CollectorRegistry

from framefeed.errors import BadInput, FramefeedError
from framefeed.option_types import shown, whole_number
from trainer_client.checked_dataset import CheckedDataset
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.feed.buckets import Buckets, policies_of
from trainer_client.feed.feed import Feed
from trainer_client.feed.given import Given, Made
from trainer_client.feed.order import Order, window_of
from trainer_client.feed.parts import Parts
from trainer_client.feed.planned_batches import planned_batches
from trainer_client.feed.prefetch import BatchPlan, Prefetch
from trainer_client.feed.progress import Progress
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.feed.slots import Allocate, SlotPool, ordinary_memory
from trainer_client.feed.stand_ins import StandIns, read, spell
from trainer_client.feed.state_check import StateCheck, name_in
from trainer_client.feed.stop_switch import end_dropped
from trainer_client.feed.turn_taking import Turn, TurnTaking
from trainer_client.fleet.addresses import LOCAL
from trainer_client.fleet.discovery import sources_of
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.run_identity import RunIdentity
from trainer_client.home_process import HomeProcess
from trainer_client.loader_options import LoaderOptions
from trainer_client.local_server import LocalServer
from trainer_client.measures.metrics import FeedCollector
from trainer_client.measures.stats import FeedState, FeedStats, Ledger, snapshot
from trainer_client.rank_roll import RankRoll, run_key
from trainer_client.samples import Dataset
from trainer_client.transports.connection import Connections
from trainer_client.transports.transport import TransportLimits

__all__ = ["ClipLoader", "LoaderOptions"]

_log = logging.getLogger(__name__)


class ClipLoader(HomeProcess):
    """An iterator of Batch in strict plan order: the same batches from any servers, whatever fails on the way.

    It begins to prefetch at the first next() and may begin before its servers do. After an error that ended the feed,
    load_state_dict(state_dict()) makes it try again from the batch that was next. Use it in a `with`, or close() it.
    An exception that a signal's handler raises inside any call leaves it as if that had not been made, or made: in
    `batch = next(loader)`, and not in a `for`, also between the two, and then state_dict() has that batch in it. One
    thread at a time iterates; another that comes while it is inside is refused. Any thread may read `stats` and
    `options`, and close() it. It belongs to the process that made it: in another one everything but close(), which does
    nothing there, raises BadInput, and so does pickling it.
    """

    def __init__(
        self,
        dataset: Dataset,
        policy: ClipPolicy | Buckets,
        options: LoaderOptions,
        *,
        registry: CollectorRegistry | None = None,
        allocate: Allocate = ordinary_memory,
    ) -> None:
        """`policy` makes all clips, or Buckets say which makes whose: then each batch is of one bucket, and has its
        shape. `registry` gets the feed's metrics until close(); `allocate` makes batch slots' memory (pinned, say).

        Raises BadInput, in one line, for options that contradict themselves, the dataset or the size of a clip, and
        ValueError for a registry that has a feed already: one feed a registry.
        """
        super().__init__()
        self._policies, members = policies_of(policy)
        if not isinstance(options, LoaderOptions):
            raise BadInput(f"loader: options is {shown(options)}, wanted a LoaderOptions")
        found = options.rank_of()
        share = Share(batch_clips=options.batch_clips, rank=found.rank, world_size=found.world_size)
        self._share, self._window_batches = share, window_of(options.order, world_size=share.world_size)
        self._dataset, self._policy, self.options = CheckedDataset(dataset), policy, options
        count, o = len(self._dataset), options
        self._sampler = Sampler(samples=count, run_seed=o.run_seed, share=share, shuffle=o.shuffle, buckets=members)
        budgets = options.rank_budgets(policy.clip_bytes)
        self._limits = options.dispatch_limits(budgets)
        self._fleet_limits = options.fleet_limits()
        options.credentials.protection.check(options.servers)
        self._secrets = options.credentials.watch()
        batch_bytes = options.batch_clips * policy.clip_bytes
        self._depth_batches = min(options.prefetch_batches, budgets.prefetch_bytes // batch_bytes)
        self._slots = SlotPool(batch_bytes, spare=self._depth_batches + 1, allocate=allocate)
        self._ledger = Ledger()
        self._feed: Feed | None = None
        self._progress = Progress()
        self._stand_ins = StandIns(self._dataset, options.poison, ledger=self._ledger)
        self._identity = self._identity_of_samples()
        self._turn = TurnTaking("a ClipLoader")
        self._roll: RankRoll | None = None
        self._data_entered = self._told_over = False
        self._closed = self._let_go = False
        self._registry = registry
        self._dropped: weakref.finalize[..., ClipLoader] | None = None  # ends the feed's thread
        itself = weakref.ref(self)  # what the registry and the thread hold must not hold the loader
        self._collector = FeedCollector(
            lambda: None if (loader := itself()) is None else loader.stats, per_server=options.per_server_metrics
        )
        if registry is not None:
            self._collector.register(registry)
        self._local = self._start_local()

    @property
    def steps(self) -> int | None:
        """Steps of the whole run, the same for all ranks; None if it has no end."""
        if self._progress.replayed is not None:
            return len(self._progress.replayed)
        if self.options.epochs is not None:
            return self._sampler.steps_in(self.options.epochs)
        return self.options.steps

    @property
    def steps_per_epoch(self) -> int:
        """Steps that use every sample once; where the global batch does not divide them, the last begins anew."""
        return self._sampler.steps_in(1)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of `pixels` of every batch. Raises BadInput where there are buckets of several."""
        shapes = sorted({policy.shape for policy in self._policies})
        if len(shapes) > 1:
            raise BadInput(f"loader: clips are of shapes {', '.join(map(str, shapes))}, wanted one for all batches")
        return (self.options.batch_clips, *shapes[0])

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses that it asks; with its own server's, so that another loader of this process may ask it too."""
        return tuple(self._local.url if url == LOCAL and self._local else url for url in self.options.servers)

    @property
    def stats(self) -> FeedStats:
        """The counts so far, over all restarts. Blocks for microseconds; safe from any thread, also after close()."""
        self._check_home()
        feed = self._feed
        return feed.stats() if feed is not None else snapshot(self._ledger, FeedState(), rank=self._share.rank)

    def __iter__(self) -> Iterator[Batch]:
        """Itself: a loop goes on where the run stands. Says so, once, when the run is over and nothing is left."""
        if self._is_over and self._progress.order.steps and not self._told_over:
            self._told_over = True
            _log.warning(
                "%r is iterated again and gives nothing: its steps are all done. Wanted epochs=… or steps=… of the "
                "whole training in its options (one loader for all epochs), or load_state_dict() of an earlier state",
                self,
            )
        return self

    def __next__(self) -> Batch:
        """The next batch. Blocks while its clips are on their way, for at most `stall_s` without any progress.

        Raises the Permanent error of a clip that no server can give, unless others may stand in, at its batch and again
        at every call (the message names video, span and server); PoisonBudgetSpent, the same way; StorageFault if the
        quarantine list cannot be written; Stalled when nothing came for `stall_s`; BadInput when no server fits the
        run, for what the dataset raises or gives that is no Sample (at its batch, again at every call), where a rank of
        this run on this node has another plan, and while another thread is inside; RuntimeError after close(), or if
        the feed's thread died.
        """
        return self.give(_as_it_is)

    def give(self, make: Callable[[Batch], Made]) -> Made:
        """What `make` makes of the next batch, which counts as delivered once that is made; else as next().

        Made again if it raises, or if an exception from a signal's handler comes before it is returned.
        """
        self._check_home()
        turn = Turn()
        try:
            self._turn.take(turn)
            feed, batch = self._next()
            order, handover = self._progress.order, feed.handover
            given, done = make(batch), self._progress.offer(batch.step, batch.stand_ins)
            # CPython runs signals' handlers after calls and in loops: never from here to where the caller goes on.
            order.steps, handover.handed, turn.over = done, None, True
            return given
        except BaseException:
            turn.over = True
            raise

    def made_by(self, make: Callable[[Batch], Made]) -> Iterator[Made]:
        """What `make` makes of each batch from here on, by give(): a `map` that loses none to a signal's handler."""
        iter(self)  # which says so if nothing is left
        return Given(self, make)

    def _next(self) -> tuple[Feed, Batch]:
        if self._closed:
            raise RuntimeError("the loader is closed")
        if self._is_over:
            raise StopIteration
        if self._feed is not None and self._feed.stop_switch.thrown:
            self._stop()  # load_state_dict() was interrupted: the run goes on where it stood
            self._feed = None
        if self._feed is None:
            self._enter_roll()
            self._feed = self._new_feed()
            _log.info("feeding from step %d: %r", self._progress.order.steps, self)
        feed = self._feed
        feed.start()
        self._stand_ins.write_found()
        try:
            batch = feed.next_batch(self._progress.order.steps)
        except FramefeedError:
            self._stand_ins.write_found()
            raise
        if batch is None:
            raise StopIteration
        if not self._data_entered:  # now the servers have said whose clips these are
            self._enter_roll()
            self._data_entered = True
        return feed, batch

    @property
    def is_ready(self) -> bool:
        """Whether next() would not wait: a batch is there, or an error. False before the first next()."""
        return not (self._closed or self._is_over) and self._feed is not None and self._feed.has_batch

    @property
    def waited_s(self) -> Mapping[str, float]:
        """Seconds that the consumer was blocked so far, by cause; those of `stats`."""
        return self.stats.wait_s

    def count_copy_wait(self, waited_s: float) -> None:
        """Count seconds for which the consumer was blocked until a batch was on its device, as waited for a copy.

        Whoever copies calls it, with the time beyond next(); in the stats it is one more cause.
        """
        if self._feed is None:
            raise RuntimeError("no batch was delivered that could have been copied")
        self._feed.count_copy_wait(waited_s)

    def state_dict(self) -> dict[str, int | str | None]:
        """Where the run stands: after the batches that next() delivered. What is prefetched beyond is not in it."""
        return self.state_after(self._progress.order.steps)

    def state_after(self, steps: int) -> dict[str, int | str | None]:
        """The state of the run once `steps` steps are done: for a consumer that holds batches it has not used yet.

        An order other than the plan's ("order") and stand-ins ("stand_ins") are in it as text, so that the run can go
        on, and its past be replayed. Raises BadInput for steps that are not done.
        """
        self._check_home()
        if not whole_number(steps) or not 0 <= steps <= self._progress.order.steps:
            raise BadInput(
                f"loader: the state after {shown(steps)} steps is asked for, wanted 0 to {self._progress.order.steps}"
            )
        progress = self._progress
        if self._feed is not None:
            progress.fingerprint, progress.data = self._feed.fingerprint or None, self._feed.dataset or None
        served_by = {"decoder_fingerprint": progress.fingerprint, "dataset": progress.data or self._identity or None}
        made_of = {"samples_digest": self._dataset.digest, "policy_digest": self._policy.digest}
        state = {**self._sampler.state_at(int(steps)), **served_by, **made_of}
        order = self._progress.order.spell(steps)
        if order is not None:
            state |= {"order": order}
        stood_in = [stand_in for before, stand_in in progress.stood_in if before < steps]
        return state | ({"stand_ins": spell(stood_in)} if stood_in else {})

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where the run with this state stood; what is prefetched is discarded. Blocks as close() does.

        Batches that were overtaken and not used yet come first. Raises BadInput, naming both values, when run seed,
        number of samples, the samples (CheckedDataset.digest says which are looked at), the policy, the data set, the
        global batch, shuffling or the order's version differ, or when batches were overtaken and there is more than one
        rank; servers with another decoder than the run's are refused when they show themselves.
        """
        self._check_home()
        order = self._order_in(state)
        stood_in = read(state.get("stand_ins"), self._dataset)
        past = [(-1, stand_in) for stand_in in stood_in]
        self._restart(state, Progress(order=order, recorded=stood_in, stood_in=past))

    def replay(self, state: Mapping[str, object], *, first: int = 0) -> None:
        """Deliver again, from step `first` on, what the run with this state had used: the same batches in the same
        order with the same stand-ins; then it ends. Blocks as close() does. Raises as load_state_dict() does.
        """
        self._check_home()
        order = self._order_in(state)
        try:
            used = order.used(order.steps)
        except ValueError as error:
            raise BadInput(f"replay: the state cannot be replayed ({error})") from None
        stood_in = read(state.get("stand_ins"), self._dataset)
        self._restart(state, Progress(replayed=used[first:], recorded=stood_in))

    def _order_in(self, state: Mapping[str, object]) -> Order:
        check = StateCheck(
            sampler=self._sampler,
            world_size=self._share.world_size,
            samples=self._dataset.digest,
            policy=self._policy.digest,
            dataset=self._identity,
        )
        return check.order_in(state)

    def _restart(self, state: Mapping[str, object], progress: Progress) -> None:
        """Interrupted, it has changed nothing but that what is prefetched is discarded."""
        progress.fingerprint, progress.data = name_in(state, "decoder_fingerprint"), name_in(state, "dataset")
        self._stop()
        self._progress, self._feed = progress, None

    def close(self) -> None:
        """Stop prefetching and let the servers go. Idempotent, and does what a call that raised has left undone; blocks
        for at most 5 s. Batches held stay valid.

        Raises RuntimeError if the feed's thread does not end in that time, StorageFault if the quarantine list cannot
        be written.
        """
        if self._let_go or not self._is_home:
            return
        self._closed = True
        if self._roll is not None:
            self._roll.close()
        if self._registry is not None:
            self._collector.unregister(self._registry)
        self._stop()
        if self._local is not None:
            self._local.close()
        self._slots.close()
        self._stand_ins.write_found()
        self._let_go = True

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:
                raise
            _log.exception("closing after an error")  # which is not to be hidden by what came of it

    def __repr__(self) -> str:
        return self._describe()()

    def _describe(self) -> Callable[[], str]:
        """What says where the run stands, whenever it is asked, and holds no loader."""
        o, share, order = self.options, self._share, self._progress.order
        clips = " or ".join(str(policy.shape) for policy in self._policies)
        rest = (
            f" of {self.steps}, rank {share.rank} of {share.world_size}, "
            f"{o.batch_clips} clips of {clips} a batch, {self._depth_batches} batches ahead, "
            f"{len(o.servers)} servers)"
        )
        return lambda: f"ClipLoader(step {order.steps}{rest}"

    @property
    def _is_over(self) -> bool:
        return self.steps is not None and self._progress.order.steps >= self.steps

    def _identity_of_samples(self) -> str:
        """The data set that the samples are of; "" if nobody says."""
        given = self.options.dataset_identity
        return self._dataset.identity if given is None else given

    def _start_local(self) -> LocalServer | None:
        """Start the server of this machine that is wanted; it ends with the loader, also one that is dropped."""
        local = self.options.local_server(self._share.rank, self._policy.clip_bytes)
        if local is not None:
            local.start()
            weakref.finalize(self, local.let_go)
        return local

    def _enter_roll(self) -> None:
        """Have the other ranks of the run on this node compared with this one. Raises BadInput for another plan."""
        o, share = self.options, self._share
        if share.world_size == 1:
            return
        if self._roll is None:
            self._roll = RankRoll(run_key(o.run, o.work_class), rank=share.rank)
        data = self._identity or (self._feed.dataset if self._feed is not None else "")
        plan = {
            "world_size": share.world_size,
            "run_seed": o.run_seed,
            "batch_clips": share.batch_clips,
            "steps": self.steps,
            "shuffle": o.shuffle,
            "samples": self._dataset.digest,
            "policy": self._policy.digest,
            "data set": data,
        }
        self._roll.enter(plan)

    def _stop(self) -> None:
        if self._feed is not None:
            self._feed.close()
        if self._dropped is not None:
            self._dropped.detach()

    def _new_feed(self) -> Feed:
        """A feed that has not begun."""
        options, progress = self.options, self._progress
        fleet = Fleet(
            (),
            limits=self._fleet_limits,
            seed=options.run_seed ^ self._share.rank,
            now_s=time.monotonic(),
            identity=RunIdentity(
                fingerprint=self._progress.fingerprint or "",
                dataset=self._progress.data or self._identity,
                clip_bytes=self._policy.clip_bytes,
                allow_mixed_decoders=options.allow_mixed_decoders,
            ),
            ledger=self._ledger,
        )
        parts = Parts(
            sources=sources_of(self.servers),
            look_every_s=options.look_every_s,
            fleet=fleet,
            dispatch=Dispatch(fleet, self._limits, ledger=self._ledger, say=_log.error),
            prefetch=Prefetch(
                self._slots,
                batch_clips=self._share.batch_clips,
                depth_batches=self._depth_batches,
                window_batches=self._window_batches if self._progress.replayed is None else 1,
            ),
            stand_ins=self._stand_ins,
            ledger=self._ledger,
            rank=self._share.rank,
            stall_s=options.stall_s,
            protection=options.credentials.protection,
        )
        limits = TransportLimits(
            clip_bytes=self._policy.clip_bytes, secrets=self._secrets, io_threads=options.io_threads
        )
        self._stand_ins.restart(
            (*progress.recorded, *(stand_in for _, stand_in in progress.stood_in)),
            replay=progress.replayed is not None,
        )
        feed = Feed(self._plan(), parts, open_wire=lambda wake: Connections(limits, wake=wake))
        self._dropped = weakref.finalize(
            self, end_dropped, feed.stop_switch, made_in=self._made_in, what=self._describe()
        )
        if not (self._progress.data or self._identity):
            _log.info(
                "the run takes the data set of most servers: neither the dataset nor dataset_identity says which one "
                "the samples are of (Manifest.identity)"
            )
        return feed

    def _plan(self) -> Iterator[BatchPlan]:
        """The batches that are not delivered yet, as the feed's thread wants them."""
        order, replayed = self._progress.order, self._progress.replayed
        done = order.steps
        steps = order.remaining(self.steps) if replayed is None else iter(replayed[done:])
        return planned_batches(steps, self._dataset, self._policies, sampler=self._sampler, stand_ins=self._stand_ins)


def _as_it_is(batch: Batch) -> Batch:
    return batch
